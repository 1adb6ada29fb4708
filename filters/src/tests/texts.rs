//! Generated text: values that rules find, what stands around them, and what is made to confuse.

use proptest::prelude::*;

use crate::corpus::{Dice, planted};

const PIECES: &[&str] = &[
    "", " ", "  ", "\t", "=", ":", "\"", "'", "\\", "\\\"", "\\n", ",", ";", "&", "@", "a@", "a@b.", ".", "-", "+", "(", ")", "::",
    "<", ">", "{", "}", "[", "]", "1", "12", "123-45-", "6789", "1.2.3.4", "1.2.3.4.5", ".5", "4111111111111111", "4111 1111 ",
    "password", "password=", "\"password\":", "\\\"password\\\":\\\"", "\"password\":\"", "token", "token: ", "refresh_token=", "secret=",
    "api_key: ", "pwd=", "Bearer ", "authorization: basic ", "://", "http://a:b@c ", "user:", "null", "hunter2", "****", "<EMAIL>",
    "<PASSWORD>", "<EMAIL:v1:abcdefghijklmnopqrst>", "<EMA", "IL>", "é", "✓", "日本", "\u{10ffff}", "eyJ", "eyJaaaaaaaaaaaa.", "AKIA",
    "DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "aa:bb:cc:dd:ee:ff", ":aa", "fe80::1", "12:34:56", "212-555-0100",
    "(212) 555-0100", "+4915112345678", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "xoxb-", "sk_live_", "SG.",
    "bob@example.org", "q7", "aab", "\0", "\u{7f}", "T",
];

/// A line: pieces one after another, glued or not, with a planted value now and then.
pub(super) fn line() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => proptest::sample::select(PIECES).prop_map(str::to_owned),
        2 => any::<u64>().prop_map(|seed| planted(&mut Dice::new(seed)).1),
        1 => any::<u64>().prop_map(|seed| planted(&mut Dice::new(seed)).0),
        1 => "[ -~]{0,6}",
        1 => (proptest::sample::select(&["1", "a", ":", "=", "a@", "1.", "ab:", "é", "\""][..]), 1_usize..90)
            .prop_map(|(what, count)| what.repeat(count)),
    ];
    proptest::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat().replace('\n', " "))
}

/// Lines, some of them empty.
pub(super) fn lines() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(prop_oneof![6 => line(), 1 => Just(String::new())], 0..12)
}
