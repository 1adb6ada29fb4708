//! How many frames may be under way to one collector at once. Pure.
//!
//! One more for every answer that comes about as fast as the fastest do, up to the first trouble; then one more for every round.
//! Fewer by a tenth where answers take much longer, because what is sent beyond that only waits at the collector; half as many
//! where it refuses or is not reached. How long the way is without waiting is measured again now and then, by a frame that goes alone. Bytes are held to what the collector says that it takes ([`IngestAnswer::credit_bytes`]).
//!
//! One frame may always be under way: its answer is how the agent learns that there is room again.
//!
//! [`IngestAnswer::credit_bytes`]: beeacon_record::wire::IngestAnswer::credit_bytes

use std::time::Duration;

use crate::limits::{BYTES_IN_FLIGHT_MAX, FRAMES_IN_FLIGHT_MAX, LATENCY_RATIO_MAX, LATENCY_SLACK};

/// After how many answers one frame is sent alone, to see how long the way is now without any waiting.
const MEASURE_AFTER: u32 = 256;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    frames: f64,
    /// Whether there was trouble yet.
    is_steady: bool,
    /// How long the way is, by frames that went alone.
    fastest: Option<Duration>,
    answers: u32,
    /// How many frames may be under way again once that has been measured.
    before_measuring: Option<f64>,
    credit_bytes: Option<u64>,
}

impl Default for Window {
    fn default() -> Self {
        Window {
            frames: 1.0,
            is_steady: false,
            fastest: None,
            answers: 0,
            before_measuring: None,
            credit_bytes: None,
        }
    }
}

impl Window {
    /// Whether a frame of `bytes` may go beside `frames` others that have `bytes_in_flight` together.
    ///
    /// ```
    /// use beeacon_agent::ship::window::Window;
    /// use std::time::Duration;
    /// let mut window = Window::default();
    /// assert!(window.has_room(0, 0, 9 << 20));
    /// assert!(!window.has_room(1, 100, 100));
    /// window.on_answer(Duration::from_millis(5), 0);
    /// assert!(window.has_room(1, 100, 100));
    /// window.on_credit(Some(150));
    /// assert!(!window.has_room(1, 100, 100));
    /// ```
    pub fn has_room(&self, frames: usize, bytes_in_flight: usize, bytes: usize) -> bool {
        let together = bytes_in_flight.saturating_add(bytes);
        frames == 0
            || frames < self.frames()
                && together <= BYTES_IN_FLIGHT_MAX
                && self.credit_bytes.is_none_or(|credit| together as u64 <= credit)
    }

    /// How many frames may be under way now.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between one and the limit")]
    pub fn frames(&self) -> usize {
        self.frames as usize
    }

    /// What the collector said last about the bytes that it takes, if it says such things.
    pub fn credit_bytes(&self) -> Option<u64> {
        self.credit_bytes
    }

    /// The collector says how many bytes it takes.
    pub fn on_credit(&mut self, credit_bytes: Option<u64>) {
        self.credit_bytes = credit_bytes;
    }

    /// A frame was answered after this time, which had so many others before it when it was sent.
    pub fn on_answer(&mut self, latency: Duration, others: usize) {
        if let Some(frames) = self.before_measuring {
            if others == 0 {
                self.fastest = Some(latency);
                self.frames = frames;
                self.before_measuring = None;
            }
            return;
        }
        let fastest = self.fastest.map_or(latency, |fastest| latency.min(fastest));
        self.fastest = Some(fastest);
        if latency > fastest * LATENCY_RATIO_MAX + LATENCY_SLACK {
            self.shrink(0.9);
        } else if others + 1 >= self.frames() {
            let step = if self.is_steady { 1.0 / self.frames } else { 1.0 };
            self.frames = (self.frames + step).min(FRAMES_IN_FLIGHT_MAX as f64);
        }
        self.answers += 1;
        if self.answers == MEASURE_AFTER {
            self.answers = 0;
            self.before_measuring = Some(std::mem::replace(&mut self.frames, 1.0));
        }
    }

    /// The collector refused for want of room or time, or could not be reached.
    pub fn on_trouble(&mut self) {
        self.shrink(0.5);
    }

    fn shrink(&mut self, factor: f64) {
        self.is_steady = true;
        self.frames = (self.frames * factor).max(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// As many under way as may be: every answer's frame had all others before it.
    fn fill(window: &mut Window, answers: u32, latency: impl Fn(u32) -> Duration) {
        for _ in 0..answers {
            let frames = window.frames();
            window.on_answer(latency(u32::try_from(frames).unwrap()), frames - 1);
        }
    }

    #[test]
    fn a_long_way_is_filled_and_never_beyond_the_limit() {
        let mut window = Window::default();
        fill(&mut window, 100, |_| 100 * MS);
        assert_eq!(window.frames(), FRAMES_IN_FLIGHT_MAX);
        assert!(!window.has_room(FRAMES_IN_FLIGHT_MAX, 0, 1));
        assert!(!window.has_room(1, BYTES_IN_FLIGHT_MAX, 1));
    }

    #[test]
    fn who_does_not_fill_the_window_does_not_widen_it() {
        let mut window = Window::default();
        fill(&mut window, 3, |_| 100 * MS);
        assert_eq!(window.frames(), 4);
        (0..100).for_each(|_| window.on_answer(100 * MS, 0));
        assert_eq!(window.frames(), 4);
    }

    /// A collector that takes 50 ms for each frame, one after another: with n under way an answer takes n times as long. Fails when
    /// what is the usual time follows what is waited.
    #[test]
    fn where_frames_only_wait_for_each_other_few_are_under_way() {
        let mut window = Window::default();
        fill(&mut window, 50, |frames| 50 * MS * frames);
        for _ in 0..5000 {
            fill(&mut window, 1, |frames| 50 * MS * frames);
            assert!(window.frames() <= 5, "{}", window.frames());
        }
    }

    #[test]
    fn refusals_halve_it_and_one_frame_may_always_go() {
        let mut window = Window::default();
        fill(&mut window, 8, |_| MS);
        window.on_trouble();
        assert_eq!(window.frames(), 4);
        (0..8).for_each(|_| window.on_trouble());
        assert_eq!(window.frames(), 1);
        window.on_credit(Some(0));
        assert!(window.has_room(0, 0, 1) && !window.has_room(1, 1, 1));
        // After trouble it grows by one a round, not by one an answer.
        fill(&mut window, 3, |_| MS);
        assert_eq!(window.frames(), 2);
    }

    #[test]
    fn a_way_that_has_become_longer_is_the_usual_one_after_a_while() {
        let mut window = Window::default();
        fill(&mut window, 8, |_| MS);
        fill(&mut window, 100, |_| 500 * MS);
        assert_eq!(window.frames(), 1);
        fill(&mut window, MEASURE_AFTER, |_| 500 * MS);
        assert_eq!(window.frames(), FRAMES_IN_FLIGHT_MAX);
    }
}
