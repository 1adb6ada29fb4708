//! A frame from a stranger never panics, never takes more memory than its limits, and what decodes encodes again.
//!
//! The first byte chooses: even bytes feed the rest in as a frame; odd ones feed it in as an inflated payload under right
//! checksums, which is what a malicious agent can send and random bytes never reach.
#![no_main]

use std::sync::LazyLock;

use beeacon_record::{
    AgentId, BatchBuilder, Epoch, Frame, FrameEncoder, Interval, Level, Line, Origin, Position, RuleSetId, Scrubbed,
    Source, Stream,
};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

/// The header of a frame of one row, and where it ends.
static HEADER: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let source = Source::new("docker-file:4f2a").expect("a good name");
    let mut builder = BatchBuilder::new("a");
    let origin = builder.origin(&Origin::default(), &source);
    let line = Line {
        origin,
        timestamp_ns: 1,
        observed_timestamp_ns: 2,
        stream: Stream::Stdout,
        level: Level::Info,
        position: Position::new(1, 0),
    };
    builder.push(line, b"started");
    let interval = Interval::new(source, Position::new(1, 0), Position::new(1, 80));
    let batch = builder.finish(vec![interval]).expect("a good batch");
    let mut encoder = encoder();
    let bytes = encoder.encode(&Scrubbed::seal(batch, RuleSetId(1))).expect("a good frame");
    let frame = Frame::parse(bytes.clone()).expect("a good frame");
    let header_bytes = bytes.len() - frame.header().payload_bytes as usize;
    let inflated = zstd::bulk::decompress(&bytes[header_bytes..], frame.header().inflated_bytes()).expect("inflates");
    (bytes[..header_bytes].to_vec(), inflated)
});

fn encoder() -> FrameEncoder {
    FrameEncoder::new(AgentId::from_bytes([1; 16]), Epoch(1), 0, 1).expect("a good level")
}

/// Puts a payload of the same inflated length behind the header, with right checksums.
fn forged(payload: &[u8]) -> Bytes {
    let (header, inflated) = &*HEADER;
    let mut payload = payload.to_vec();
    payload.resize(inflated.len(), 0);
    // Fuzz what stands behind the arrow stream's first message too: xor keeps the well-formed parts reachable.
    for (byte, good) in payload.iter_mut().zip(inflated) {
        *byte ^= good;
    }
    let compressed = zstd::bulk::compress(&payload, 1).expect("compresses");
    let mut frame = header.clone();
    let end = frame.len();
    frame[16..20].copy_from_slice(&(compressed.len() as u32).to_le_bytes());
    frame[end - 8..end - 4].copy_from_slice(&crc32c::crc32c(&compressed).to_le_bytes());
    let crc = crc32c::crc32c(&frame[..end - 4]);
    frame[end - 4..].copy_from_slice(&crc.to_le_bytes());
    frame.extend_from_slice(&compressed);
    Bytes::from(frame)
}

fuzz_target!(init: {
    // libFuzzer's hook aborts on every panic, also on those of arrow's reader that the decoder catches on purpose. What
    // must not happen is a panic that leaves the decoder; that still ends the process here.
    std::panic::set_hook(Box::new(|_| {}));
}, |data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    let bytes = if mode % 2 == 0 { Bytes::copy_from_slice(rest) } else { forged(rest) };
    if let Ok(frame) = Frame::parse(bytes)
        && let Ok(batch) = frame.decode()
    {
        let again = encoder().encode(&batch).expect("what decodes encodes");
        let again = Frame::parse(again).expect("and parses").decode().expect("and decodes");
        assert_eq!(again.get().rows(), batch.get().rows());
    }
});
