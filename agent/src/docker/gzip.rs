//! A rotated log that Docker has compressed, read as what it was before.
//!
//! What always holds: offsets are those of the content; memory is one inflater's, whatever the file claims to hold; what cannot be
//! inflated ends the file there and marks it as broken, so that a gap stands for the rest. Going backwards inflates again from the
//! start, which only a rewind does.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

/// How much is inflated at once on the way to an offset, in bytes.
const SKIP_BYTES: usize = 32 << 10;

/// A file from an offset on, however many others read it.
#[derive(Debug)]
struct From {
    file: Arc<File>,
    at: u64,
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Inflated {
    file: Arc<File>,
    decoder: MultiGzDecoder<From>,
    /// How much has been inflated.
    at: u64,
    /// How long the content is by what the file says, modulo 2^32.
    announced: u64,
    /// How long it is, once its end was reached.
    end: Option<u64>,
    is_broken: bool,
}

impl Inflated {
    /// # Errors
    /// When the file cannot be read. What it holds is not looked at yet.
    pub(super) fn new(file: Arc<File>) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        let mut trailer = [0; 4];
        let announced = match bytes.checked_sub(4) {
            Some(at) => file.read_exact_at(&mut trailer, at).map(|()| u32::from_le_bytes(trailer).into())?,
            None => 0,
        };
        let decoder = MultiGzDecoder::new(From { file: file.clone(), at: 0 });
        Ok(Inflated { file, decoder, at: 0, announced, end: None, is_broken: false })
    }

    /// How long the content is, in bytes: exact once its end was reached, and never less than one more than what was read before.
    pub(super) fn bytes(&self) -> u64 {
        self.end.unwrap_or_else(|| self.announced.max(self.at + 1))
    }

    /// Whether it ends before it should.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Reads content at an offset: as much as fits, less only at the end.
    ///
    /// # Errors
    /// When the file cannot be read; what is no gzip is an end instead.
    pub(super) fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.end.is_some_and(|end| offset >= end) {
            return Ok(0);
        }
        if offset < self.at {
            self.decoder = MultiGzDecoder::new(From { file: self.file.clone(), at: 0 });
            self.at = 0;
        }
        let mut skipped = [0; SKIP_BYTES];
        while self.at < offset {
            let wanted = usize::try_from(offset - self.at).unwrap_or(SKIP_BYTES).min(SKIP_BYTES);
            if self.fill(skipped.get_mut(..wanted).unwrap_or(&mut []))? == 0 {
                return Ok(0);
            }
        }
        self.fill(buffer)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.decoder.read(rest) {
                Ok(0) => {
                    self.end = Some(self.at);
                    break;
                }
                Ok(read) => {
                    filled += read;
                    self.at += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error().is_some() => return Err(error),
                Err(_) => {
                    self.end = Some(self.at);
                    self.is_broken = true;
                    break;
                }
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn open(bytes: &[u8]) -> Inflated {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Inflated::new(Arc::new(file)).unwrap()
    }

    fn content() -> Vec<u8> {
        let mut state = 1_u64;
        let mut step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u8::try_from(state >> 58).unwrap()
        };
        (0..300_000).map(|_| step()).collect()
    }

    #[test]
    fn content_is_the_same_at_every_offset_forwards_and_backwards() {
        let content = content();
        let mut inflated = open(&gzip(&content));
        assert_eq!(inflated.bytes(), content.len() as u64, "the file says how long it is");
        let mut buffer = vec![0; 70_000];
        for offset in [0, 1, 70_001, 299_999, 5, 250_000, 300_000, 300_001, 100] {
            let read = inflated.read_at(&mut buffer, offset as u64).unwrap();
            let expected = content.get(offset..).unwrap_or(&[]);
            let expected = &expected[..expected.len().min(buffer.len())];
            assert_eq!(&buffer[..read], expected, "at {offset}");
        }
        assert_eq!((inflated.bytes(), inflated.is_broken()), (content.len() as u64, false));
        // Content in several parts, as some tools write it.
        let mut parts = open(&[gzip(&content[..100]), gzip(&content[100..])].concat());
        let read = parts.read_at(&mut buffer, 50).unwrap();
        assert_eq!(&buffer[..read], &content[50..50 + 70_000]);
    }

    /// Wherever the file is cut, what comes out is a beginning of the content, and the end is marked as broken.
    #[test]
    fn a_file_that_was_cut_ends_where_it_can_no_more_be_inflated_and_is_broken() {
        let content = content();
        let whole = gzip(&content);
        for cut in [0, 1, 5, 9, 10, 11, 1000, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
            let mut inflated = open(&whole[..cut]);
            let mut read = Vec::new();
            let mut buffer = vec![0; 10_000];
            loop {
                let some = inflated.read_at(&mut buffer, read.len() as u64).unwrap();
                if some == 0 {
                    break;
                }
                read.extend_from_slice(&buffer[..some]);
            }
            assert!(content.starts_with(&read), "cut at {cut}");
            assert!(inflated.is_broken() || (cut == 0 && read.is_empty()), "cut at {cut}");
            assert_eq!(inflated.bytes(), read.len() as u64);
        }
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 0x55;
        let mut inflated = open(&damaged);
        while inflated.read_at(&mut vec![0; 10_000], inflated.at).unwrap() > 0 {}
        assert!(inflated.is_broken());
    }

    /// 64 MiB of zeros in a file of some hundred KiB: what is read is asked for, and nothing more is held.
    #[test]
    fn a_bomb_inflates_only_as_far_as_it_is_read() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let zeros = vec![0; 1 << 20];
        (0..64).for_each(|_| encoder.write_all(&zeros).unwrap());
        let mut inflated = open(&encoder.finish().unwrap());
        let mut buffer = vec![1; 4096];
        assert_eq!(inflated.read_at(&mut buffer, 0).unwrap(), 4096);
        assert_eq!(inflated.at, 4096);
        assert_eq!(inflated.bytes(), 64 << 20);
    }
}
