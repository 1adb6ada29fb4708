//! Slack tokens: numbers of workspace, user or bot, then letters. `xoxb-my-bot-token` has none.

use std::ops::Range;

use super::token::PLACEHOLDER_BYTES_MAX;

/// A workspace's number alone is longer.
const DIGITS_MIN: usize = 4;

/// The shortest that was ever given out is longer.
const BYTES_MIN: usize = 20;

pub(super) fn check(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    (text.len() > PLACEHOLDER_BYTES_MAX || (text.len() >= BYTES_MIN && digits >= DIGITS_MIN)).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    #[test]
    fn a_token_has_numbers() {
        table(
            check,
            &["xoxb-012345678901-abcdefghij", "xoxe-1-Mi0yLTM0MTQwNDE0MDE3Ni0z"],
            &["xoxb-my-own-bot-token-here", "xoxb-12345-abcd", "xoxp-xxxxxxxxxxx-xxxxxxxxxxxxxxx"],
        );
    }
}
