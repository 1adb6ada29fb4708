//! Time and rates for programs that measure.

use std::time::Instant;

/// The least time that work took, in seconds of this thread's processor.
pub(crate) fn best(times: usize, mut work: impl FnMut()) -> f64 {
    let once = |work: &mut dyn FnMut()| {
        let (wall, processor) = (Instant::now(), processor_seconds());
        work();
        match (processor, processor_seconds()) {
            // The kernel keeps this account in steps: what is too short for it is taken from the wall.
            (Some(before), Some(after)) if after - before > 0.02 => after - before,
            _ => wall.elapsed().as_secs_f64(),
        }
    };
    (0..times).map(|_| once(&mut work)).fold(f64::INFINITY, f64::min)
}

/// This thread's processor time: on a busy machine the clock on the wall says nothing.
fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}

/// Megabytes a second.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
pub(crate) fn rate(bytes: usize, seconds: f64) -> f64 {
    bytes as f64 / 1e6 / seconds
}
