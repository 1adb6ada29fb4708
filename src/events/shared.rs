//! Events over Redis: each server publishes its own on `events:{type}`, and writes those of the others into its log, from where its
//! streams have them.
//!
//! What was published is known by a place in the log. While Redis is away it stays where it is; what has happened meanwhile is
//! published when Redis is back, and what may have been published before a kill is published again: whoever hears it knows it by its id.

use beeacon_access::Redis;
use beeacon_events::{Event, Selection, Step, Stored};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::Events;
use super::limits::{HEARD_WAITING_MAX, PUBLISH_EVERY, PUBLISH_PAGE, PUBLISHED_WITHIN};
use crate::doors;

/// The name under which the place of what was published is kept.
pub(super) const PUBLISHED: &str = "published";

/// The channels.
const CHANNELS: &str = "events:*";

fn channel(event: &Event) -> String {
    format!("events:{}", event.kind)
}

/// Publishes our own events until told to stop.
pub(super) async fn publish(events: Events, redis: Redis, mut stop: watch::Receiver<bool>) {
    let mut last = events.0.log.last();
    let (mut place, mut written) = (None, None);
    let mut every = tokio::time::interval(PUBLISH_EVERY);
    loop {
        // When something new is there; and now and then, for a Redis that is back, and for the place.
        let is_time = tokio::select! {
            () = doors::until_stopped(&mut stop) => return,
            _ = last.changed() => false,
            _ = every.tick() => true,
        };
        if place.is_none()
            && let Ok(kept) = events.0.log.kept(PUBLISHED).await
        {
            place = Some(kept.and_then(|place| place.parse().ok()).unwrap_or(0));
            written = place;
        }
        let Some(before) = place else { continue };
        if redis.is_connected() {
            place = Some(publish_from(&events, &redis, before).await);
        }
        if is_time && place != written {
            let kept = vec![(PUBLISHED.to_owned(), place.map(|place: u64| place.to_string()))];
            if !events.write_until(&Step { events: Vec::new(), kept }, &mut stop).await {
                return;
            }
            written = place;
        }
    }
}

/// Publishes what is behind a place, and says how far it came.
async fn publish_from(events: &Events, redis: &Redis, mut place: u64) -> u64 {
    loop {
        let Ok((page, upto)) = events.0.log.after(place, &Selection::default(), PUBLISH_PAGE).await else {
            return place;
        };
        let oldest = Timestamp::now().checked_sub(PUBLISHED_WITHIN).unwrap_or(Timestamp::MIN);
        let own = page.iter().filter(|stored| stored.event.server() == events.0.maker.server());
        let (young, old): (Vec<&Stored>, Vec<_>) = own.partition(|stored| stored.event.timestamp >= oldest);
        let messages: Vec<(String, Vec<u8>)> = young
            .iter()
            .filter_map(|stored| Some((channel(&stored.event), serde_json::to_vec(&stored.event).ok()?)))
            .collect();
        if !redis.publish(&messages).await {
            return place;
        }
        events.0.unpublished.inc_by(old.len() as u64);
        if place == upto {
            return place;
        }
        place = upto;
    }
}

/// Writes the events of other servers until told to stop.
pub(super) async fn hear(events: Events, redis: Redis, mut stop: watch::Receiver<bool>) {
    let (to, mut from) = mpsc::channel(HEARD_WAITING_MAX);
    let hearing = redis.hear(CHANNELS, to, &events.0.heard);
    let writing = async {
        let mut messages = Vec::new();
        while from.recv_many(&mut messages, PUBLISH_PAGE).await > 0 {
            let mut step = Step::default();
            for message in messages.drain(..) {
                match Event::read(&message) {
                    Ok(event) if event.server() == events.0.maker.server() => {}
                    Ok(mut event) => {
                        // Its number is that of the other log.
                        event.metadata.remove("sequence");
                        step.events.push(event);
                    }
                    Err(_) => {
                        events.0.refused.inc();
                    }
                }
            }
            // Others wait for nothing here, and hearing goes on meanwhile.
            if !step.events.is_empty() && events.write(&step).await.is_err() {
                events.0.refused.inc_by(step.events.len() as u64);
            }
        }
    };
    tokio::select! {
        () = hearing => {}
        () = writing => {}
        () = doors::until_stopped(&mut stop) => {}
    }
}
