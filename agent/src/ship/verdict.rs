//! What the collector's answer means for the agent. Pure.

use std::time::Duration;

use beeacon_record::wire::{Committed, IngestAnswer, Refusal, RefusalCode, SessionAnswer};
use serde::de::DeserializeOwned;

/// What an answer to a frame asks of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Durable.
    Committed(IngestAnswer),
    /// Read again from these positions.
    Rewind(Vec<Committed>),
    /// Open a session first: there is none, or the collector is an older one than it was opened with and reads older frames only.
    NoSession,
    /// Another collector has taken the place of the one asked: open a session with it.
    Elsewhere,
    /// A newer session of this agent exists.
    Fenced,
    /// Never acceptable as it is: cut it smaller, down to the one row that is at fault.
    Smaller,
    /// Not now.
    Later(Option<Duration>),
    /// The collector cannot read what this agent writes, or does not let it in: nothing but a change of configuration helps,
    /// yet it is tried again.
    Refused(RefusalCode),
}

/// What an answer to a session request asks of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionVerdict {
    /// The session is open.
    Open(SessionAnswer),
    /// Try again.
    Later(Option<Duration>),
    /// See [`Verdict::Refused`].
    Refused(RefusalCode),
}

/// Judges the answer to a frame.
pub fn judge_frame(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Verdict {
    if status == 200 {
        return parse(body).map_or(Verdict::Later(None), Verdict::Committed);
    }
    let refusal: Option<Refusal> = parse(body);
    let code = refusal.as_ref().map(|refusal| refusal.error.code);
    match (status, code) {
        (_, Some(RefusalCode::Fenced)) => Verdict::Fenced,
        (_, Some(RefusalCode::NoSession | RefusalCode::Newer)) => Verdict::NoSession,
        (_, Some(RefusalCode::Position)) => {
            Verdict::Rewind(refusal.map(|refusal| refusal.expected).unwrap_or_default())
        }
        (_, Some(RefusalCode::Malformed | RefusalCode::TooLarge)) | (413, None) => Verdict::Smaller,
        (_, Some(RefusalCode::Busy | RefusalCode::Internal)) => Verdict::Later(retry_after),
        (429 | 500..=599, _) => Verdict::Later(retry_after),
        (_, Some(code)) => Verdict::Refused(code),
        (401 | 403, None) => Verdict::Refused(RefusalCode::Unauthorized),
        _ => Verdict::Refused(RefusalCode::NotFound),
    }
}

/// Judges the answer to a session request.
pub fn judge_session(status: u16, retry_after: Option<Duration>, body: &[u8]) -> SessionVerdict {
    if status == 200 {
        return parse(body).map_or(SessionVerdict::Later(None), SessionVerdict::Open);
    }
    match judge_frame(status, retry_after, body) {
        Verdict::Refused(code) => SessionVerdict::Refused(code),
        Verdict::Later(wait) => SessionVerdict::Later(wait),
        _ => SessionVerdict::Later(None),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: &str) -> Vec<u8> {
        format!(r#"{{"error":{{"code":"{code}","message":"x"}},"expected":[]}}"#).into_bytes()
    }

    #[test]
    fn every_answer_has_its_consequence() {
        let soon = Some(Duration::from_secs(2));
        let table: &[(u16, Vec<u8>, Verdict)] = &[
            (
                200,
                br#"{"committed":[],"rows":3,"duplicate_rows":0}"#.to_vec(),
                Verdict::Committed(IngestAnswer {
                    committed: vec![],
                    rows: 3,
                    duplicate_rows: 0,
                    credit_bytes: None,
                }),
            ),
            (200, b"<html>".to_vec(), Verdict::Later(None)),
            (409, refusal("fenced"), Verdict::Fenced),
            (409, refusal("no_session"), Verdict::NoSession),
            (409, refusal("position"), Verdict::Rewind(vec![])),
            (400, refusal("malformed"), Verdict::Smaller),
            (413, refusal("too_large"), Verdict::Smaller),
            (413, vec![], Verdict::Smaller),
            (400, refusal("newer"), Verdict::NoSession),
            (401, refusal("unauthorized"), Verdict::Refused(RefusalCode::Unauthorized)),
            (403, vec![], Verdict::Refused(RefusalCode::Unauthorized)),
            (404, b"nginx".to_vec(), Verdict::Refused(RefusalCode::NotFound)),
            (503, refusal("busy"), Verdict::Later(soon)),
            (429, vec![], Verdict::Later(soon)),
            (502, b"bad gateway".to_vec(), Verdict::Later(soon)),
            (500, refusal("internal"), Verdict::Later(soon)),
        ];
        for (status, body, expected) in table {
            assert_eq!(
                &judge_frame(*status, soon, body),
                expected,
                "{status} {}",
                String::from_utf8_lossy(body)
            );
        }
    }
}
