//! How much longer Docker keeps what has not been read: estimated, from the sizes it rotates at and the pace of writing. Pure.

use std::time::Duration;

/// How a json-file log is rotated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The size after which a file is rotated, in bytes; none where Docker never does.
    pub file_bytes_max: Option<u64>,
    /// How many files are kept, the one that is written included.
    pub files_max: u64,
}

impl Retention {
    /// From the log driver's options `max-size` and `max-file`; what Docker would not take counts as its default.
    pub fn from_options(size: Option<&str>, files: Option<&str>) -> Self {
        let file_bytes_max = size.and_then(size_bytes);
        let files_max = files.and_then(|files| files.trim().parse().ok()).unwrap_or(1).max(1);
        Retention { file_bytes_max, files_max }
    }

    /// How many bytes the container may still write before the file is removed that is `place` rotations old, with `live_bytes`
    /// in the newest one. None where Docker removes nothing.
    pub fn bytes_left(self, place: u64, live_bytes: u64) -> Option<u64> {
        let size = self.file_bytes_max?;
        let rotations = self.files_max.saturating_sub(place);
        Some(size.saturating_mul(rotations).saturating_sub(live_bytes))
    }
}

/// A size as Docker writes it: a number, or one with k, m or g, in powers of 1024. None where there is no limit.
fn size_bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let text = text.strip_suffix('b').unwrap_or(&text);
    let text = text.strip_suffix('i').unwrap_or(text);
    let (number, shift) = match text.as_bytes().last()? {
        b'k' => (text.strip_suffix('k')?, 10),
        b'm' => (text.strip_suffix('m')?, 20),
        b'g' => (text.strip_suffix('g')?, 30),
        _ => (text, 0),
    };
    let number: u64 = number.trim().parse().ok()?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

/// The pace at which a log grows, smoothed over a few looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    bytes_per_second: u64,
}

impl Pace {
    /// So much was written in this time.
    pub fn note(&mut self, bytes: u64, span: Duration) {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
        let now = bytes.saturating_mul(1000) / millis;
        // A rise counts at once, for it is what loses lines; a fall counts by half.
        self.bytes_per_second = now.max(self.bytes_per_second / 2 + now / 2);
    }

    /// Bytes per second.
    pub fn bytes_per_second(self) -> u64 {
        self.bytes_per_second
    }

    /// How long writing so many bytes takes; none at a standstill.
    pub fn time_for(self, bytes: u64) -> Option<Duration> {
        (self.bytes_per_second > 0)
            .then(|| Duration::from_millis(bytes.saturating_mul(1000) / self.bytes_per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_writes_them() {
        let table = [
            (Some("10m"), Some(10 << 20)),
            (Some("20k"), Some(20 << 10)),
            (Some("1G"), Some(1 << 30)),
            (Some("5MB"), Some(5 << 20)),
            (Some("4096"), Some(4096)),
            (Some("-1"), None),
            (Some("0"), None),
            (Some("m"), None),
            (None, None),
        ];
        for (text, expected) in table {
            assert_eq!(Retention::from_options(text, None).file_bytes_max, expected, "{text:?}");
        }
        assert_eq!(Retention::from_options(None, Some("3")).files_max, 3);
        assert_eq!(Retention::from_options(None, Some("x")).files_max, 1);
    }

    #[test]
    fn what_is_unread_is_lost_when_its_file_has_been_rotated_out() {
        let three = Retention { file_bytes_max: Some(1000), files_max: 3 };
        // In the newest file: it must fill, and become the third.
        assert_eq!(three.bytes_left(0, 400), Some(2600));
        assert_eq!(three.bytes_left(2, 400), Some(600));
        assert_eq!(three.bytes_left(3, 400), Some(0), "removed already, held open");
        assert_eq!(Retention::default().bytes_left(0, 1), None);
        let mut pace = Pace::default();
        assert_eq!(pace.time_for(10), None);
        pace.note(2000, Duration::from_secs(2));
        assert_eq!((pace.bytes_per_second(), pace.time_for(2600)), (1000, Some(Duration::from_millis(2600))));
        pace.note(0, Duration::from_secs(1));
        assert_eq!(pace.bytes_per_second(), 500);
    }
}
