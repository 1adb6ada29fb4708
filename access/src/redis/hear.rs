//! Publishing, and hearing what others publish.
//!
//! What always holds: whoever publishes waits as long as for any other answer; what is heard and does not fit the queue is left out
//! and counted, so that a flood takes no memory; a subscription that does not answer a ping is made anew.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use redis::aio::PubSub;
use tokio::sync::mpsc;
use tokio::time::{interval, sleep, timeout};

use super::Redis;
use crate::limits::{REDIS_CONNECT_TIME_MAX, REDIS_RETRY_MAX, REDIS_RETRY_MIN, SUBSCRIPTION_PING_EVERY};

/// What was heard of a subscription.
#[derive(Debug, Default)]
pub struct Heard {
    /// Messages that were handed on.
    pub messages: AtomicU64,
    /// Messages that did not fit the queue and were left out.
    pub left_out: AtomicU64,
    /// How often the subscription was made.
    pub subscriptions: AtomicU64,
}

impl Redis {
    /// Publishes messages, each on its channel, in one go; false when Redis did not take them, and then they may be out or not.
    pub async fn publish(&self, messages: &[(String, Vec<u8>)]) -> bool {
        if messages.is_empty() {
            return true;
        }
        let published = self.ask(async |mut connection| {
            let mut pipe = redis::pipe();
            for (channel, message) in messages {
                pipe.publish(channel, message).ignore();
            }
            pipe.query_async::<()>(&mut connection).await
        });
        published.await.is_some()
    }

    /// Hands on what is published on the channels of a pattern such as `events:*`; ends when nobody takes it any more.
    /// What is published while there is no subscription is not heard.
    pub async fn hear(&self, pattern: &str, to: mpsc::Sender<Vec<u8>>, heard: &Heard) {
        let mut wait = REDIS_RETRY_MIN;
        while !to.is_closed() {
            if let Some(subscription) = self.subscribe(pattern).await {
                heard.subscriptions.fetch_add(1, Ordering::Relaxed);
                wait = REDIS_RETRY_MIN;
                hand_on(subscription, &to, heard).await;
            }
            tokio::select! {
                () = to.closed() => return,
                () = sleep(wait) => {}
            }
            wait = (2 * wait).min(REDIS_RETRY_MAX);
        }
    }

    async fn subscribe(&self, pattern: &str) -> Option<PubSub> {
        let connecting = async {
            let client = &self.0.client;
            let mut subscription = match &self.0.tls {
                None => client.get_async_pubsub().await?,
                Some(tls) => {
                    let settings = client.get_connection_info().redis_settings();
                    PubSub::new(settings, tls.connect().await?).await?
                }
            };
            subscription.psubscribe(pattern).await?;
            Ok::<_, redis::RedisError>(subscription)
        };
        timeout(REDIS_CONNECT_TIME_MAX, connecting).await.ok()?.ok()
    }
}

async fn hand_on(subscription: PubSub, to: &mpsc::Sender<Vec<u8>>, heard: &Heard) {
    let (mut asking, mut messages) = subscription.split();
    let mut every = interval(SUBSCRIPTION_PING_EVERY);
    // The library's own queue has no limit, so it is emptied whatever happens, also while a ping waits for its answer.
    let pinging = async move {
        loop {
            every.tick().await;
            let pinged = timeout(REDIS_CONNECT_TIME_MAX, asking.ping::<redis::Value>()).await;
            if !matches!(pinged, Ok(Ok(_))) {
                return;
            }
        }
    };
    let mut pinging = std::pin::pin!(pinging);
    loop {
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else { return };
                match to.try_send(message.get_payload_bytes().to_vec()) {
                    Ok(()) => heard.messages.fetch_add(1, Ordering::Relaxed),
                    Err(_) => heard.left_out.fetch_add(1, Ordering::Relaxed),
                };
            }
            () = pinging.as_mut() => return,
            () = to.closed() => return,
        }
    }
}
