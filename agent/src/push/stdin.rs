//! Reads standard input line by line, on a thread of its own: a pipe can be waited for only by blocking.

use std::io::BufRead;
use std::sync::Arc;

use beeacon_record::Origin;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Door, PushError, PushLine, PushSender};
use crate::backoff::Backoff;
use crate::limits::{STDIN_LINE_BYTES_MAX, STDIN_READ_BYTES};

/// Reads until the input ends or the agent stops, and says how that went. What has been read is in the spool then.
///
/// # Errors
/// When the input cannot be read, or lines cannot be kept.
pub fn read(
    mut input: impl BufRead,
    service: &str,
    lane: &PushSender,
    runtime: &Handle,
    stop: &CancellationToken,
) -> Result<u64, StdinError> {
    let origin = Arc::new(Origin { service: service.to_owned(), ..Origin::default() });
    let (mut open, mut count) = (Vec::new(), 0);
    loop {
        let block = input.fill_buf()?;
        let (length, is_end) = (block.len(), block.is_empty());
        let mut lines = Vec::new();
        let mut rest = block.get(..length.min(STDIN_READ_BYTES)).unwrap_or(block);
        let taken = rest.len();
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (text, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            open.extend_from_slice(text);
            lines.push(PushLine::plain(origin.clone(), Bytes::from(std::mem::take(&mut open))));
            rest = behind.get(1..).unwrap_or(&[]);
        }
        open.extend_from_slice(rest);
        if !open.is_empty() && (is_end || open.len() >= STDIN_LINE_BYTES_MAX) {
            let mut line = PushLine::plain(origin.clone(), Bytes::from(std::mem::take(&mut open)));
            line.attributes.push(("truncated".to_owned(), if is_end { "eof" } else { "cut" }.to_owned()));
            lines.push(line);
        }
        input.consume(taken);
        count += lines.len() as u64;
        let lines = Arc::new(lines);
        let mut backoff = Backoff::default();
        loop {
            match runtime.block_on(lane.deliver(Door::Stdin, lines.clone())) {
                Ok(()) => break,
                Err(PushError::Full) if !stop.is_cancelled() => std::thread::sleep(backoff.next_wait()),
                Err(error) => return Err(error.into()),
            }
        }
        if is_end || stop.is_cancelled() {
            return Ok(count);
        }
    }
}

/// Why standard input was given up.
#[derive(Debug, thiserror::Error)]
pub enum StdinError {
    /// It cannot be read.
    #[error("read standard input")]
    Read(#[from] std::io::Error),
    /// Lines cannot be kept.
    #[error("keep lines of standard input")]
    Push(#[from] PushError),
}
