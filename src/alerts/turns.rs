//! Turns at evaluating groups of rules, taken over Redis. Without an answer of Redis every server evaluates for itself.

use std::time::Duration;

use beeacon_access::Redis;
use beeacon_alerts::runner::{Asked, TakeTurns, Turn};

/// Takes turns as `lock:alerts:{group}`.
pub(super) struct Turns(pub(super) Redis);

impl TakeTurns for Turns {
    fn take(&self, group: &str, span: Duration) -> Asked {
        let (redis, name) = (self.0.clone(), format!("alerts:{group}"));
        Box::pin(async move {
            match redis.take_turn(&name, span).await {
                beeacon_access::Turn::Mine => Turn::Mine,
                beeacon_access::Turn::Anothers => Turn::Anothers,
                beeacon_access::Turn::Unshared => Turn::Everyones,
            }
        })
    }
}
