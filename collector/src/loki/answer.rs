//! What Loki's answer to a push asks for. Pure.
//!
//! Loki's text may quote labels and times of the entries it refuses. It is looked at for its reason and goes nowhere.

use std::time::Duration;

use http::StatusCode;
use serde::Serialize;

use crate::limits::LOKI_RETRY_AFTER_MAX;

/// What to do about a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Taken.
    Accepted,
    /// Send the same again later.
    Again {
        kind: FailureKind,
        /// Not before this.
        after: Option<Duration>,
    },
    /// At least one entry will never be taken.
    Refused { reason: RefusalReason },
}

/// Why a push has to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No connection, or it broke.
    Connection,
    /// No answer in time.
    Timeout,
    /// Too much at once, says Loki (429).
    RateLimited,
    /// Loki is at fault (5xx).
    Server,
    /// Loki does not know who this is (401, 403): the settings are wrong.
    Unauthorized,
    /// Nothing takes pushes there (404, 405, a redirect): the settings are wrong.
    NotFound,
}

impl FailureKind {
    /// As metrics and status name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            FailureKind::Connection => "connection",
            FailureKind::Timeout => "timeout",
            FailureKind::RateLimited => "rate_limited",
            FailureKind::Server => "server",
            FailureKind::Unauthorized => "unauthorized",
            FailureKind::NotFound => "not_found",
        }
    }
}

/// Why Loki refuses an entry for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// Older than Loki takes at all.
    TooOld,
    /// Too far behind the newest entry of its stream.
    TooFarBehind,
    /// Too far in the future.
    TooNew,
    /// The line is longer than Loki's limit, by default 256 KiB.
    LineTooLong,
    /// Something about the labels.
    Labels,
    /// Something about the structured metadata.
    Metadata,
    /// Larger than Loki takes in one request, and not to be cut further.
    TooLarge,
    /// Something else.
    Other,
}

impl RefusalReason {
    /// Every reason.
    pub const ALL: [RefusalReason; 8] = [
        RefusalReason::TooOld,
        RefusalReason::TooFarBehind,
        RefusalReason::TooNew,
        RefusalReason::LineTooLong,
        RefusalReason::Labels,
        RefusalReason::Metadata,
        RefusalReason::TooLarge,
        RefusalReason::Other,
    ];

    /// As metrics and status name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            RefusalReason::TooOld => "too_old",
            RefusalReason::TooFarBehind => "too_far_behind",
            RefusalReason::TooNew => "too_new",
            RefusalReason::LineTooLong => "line_too_long",
            RefusalReason::Labels => "labels",
            RefusalReason::Metadata => "metadata",
            RefusalReason::TooLarge => "too_large",
            RefusalReason::Other => "other",
        }
    }
}

/// Parts of Loki's messages, the first that is found decides.
const REASONS: [(&str, RefusalReason); 9] = [
    ("too far behind", RefusalReason::TooFarBehind),
    ("out of order", RefusalReason::TooFarBehind),
    ("timestamp too old", RefusalReason::TooOld),
    ("timestamp too new", RefusalReason::TooNew),
    ("max entry size", RefusalReason::LineTooLong),
    ("structured metadata", RefusalReason::Metadata),
    ("structured_metadata", RefusalReason::Metadata),
    ("label", RefusalReason::Labels),
    ("too large", RefusalReason::TooLarge),
];

/// Judges an answer by its status, its `Retry-After` and the beginning of its text.
pub(super) fn judge(status: StatusCode, retry_after: Option<&str>, text: &str) -> Answer {
    let after = retry_after.and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
    let again = |kind| Answer::Again { kind, after: after.map(|after| after.min(LOKI_RETRY_AFTER_MAX)) };
    match status.as_u16() {
        200..=299 => Answer::Accepted,
        429 => again(FailureKind::RateLimited),
        408 | 425 | 500..=599 => again(FailureKind::Server),
        401 | 403 | 407 => again(FailureKind::Unauthorized),
        404 | 405 | 410 => again(FailureKind::NotFound),
        413 => Answer::Refused { reason: RefusalReason::TooLarge },
        400..=499 => {
            let found = REASONS.into_iter().find(|(part, _)| text.contains(part));
            Answer::Refused { reason: found.map_or(RefusalReason::Other, |(_, reason)| reason) }
        }
        _ => again(FailureKind::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_loki_is_judged() {
        use FailureKind as F;
        use RefusalReason as R;
        let again = |kind| Answer::Again { kind, after: None };
        let refused = |reason| Answer::Refused { reason };
        let far = "entry with timestamp 2026-01-01 ignored, reason: 'entry too far behind, entry timestamp is: 2026-01-01T00:00:00Z', total ignored: 1 out of 3 for stream: {host=\"h\"}";
        let old = "entry for stream '{host=\"h\"}' has timestamp too old: 2026-01-01, oldest acceptable timestamp is: 2026-02-01";
        let long = "max entry size '262144' bytes exceeded for stream '{label=\"x\"}' while adding an entry with length '300000' bytes";
        let table = [
            (204, "", Answer::Accepted),
            (200, "", Answer::Accepted),
            (400, far, refused(R::TooFarBehind)),
            (400, old, refused(R::TooOld)),
            (400, "entry for stream '{}' has timestamp too new: x", refused(R::TooNew)),
            (400, long, refused(R::LineTooLong)),
            (400, "entry for stream '{}' has 16 label names; limit 15", refused(R::Labels)),
            (400, "stream '{}' has structured metadata too large", refused(R::Metadata)),
            (422, "", refused(R::Other)),
            (413, "", refused(R::TooLarge)),
            (429, "Ingestion rate limit exceeded", again(F::RateLimited)),
            (500, "", again(F::Server)),
            (503, "at least 1 live replicas required", again(F::Server)),
            (401, "no org id", again(F::Unauthorized)),
            (404, "", again(F::NotFound)),
            (302, "", again(F::NotFound)),
        ];
        for (status, text, expected) in table {
            let judged = judge(StatusCode::from_u16(status).unwrap(), None, text);
            assert_eq!(judged, expected, "{status} {text}");
        }
    }

    #[test]
    fn a_retry_after_is_honoured_up_to_its_limit_and_only_as_seconds() {
        for (value, expected) in [
            ("7", Some(Duration::from_secs(7))),
            (" 7 ", Some(Duration::from_secs(7))),
            ("999999", Some(LOKI_RETRY_AFTER_MAX)),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
            ("-1", None),
        ] {
            let judged = judge(StatusCode::TOO_MANY_REQUESTS, Some(value), "");
            assert_eq!(judged, Answer::Again { kind: FailureKind::RateLimited, after: expected }, "{value}");
        }
    }
}
