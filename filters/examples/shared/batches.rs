//! Text as the agent hands it to the filter.

use beeacon_record::{Batch, BatchBuilder, Interval, Level, Line, Origin, Position, Source, Stream};

/// Full batches of a text's lines, of one source.
pub(crate) fn batches(text: &str) -> Result<Vec<Batch>, Box<dyn std::error::Error>> {
    let source = Source::new("measured:1")?;
    let mut builder = BatchBuilder::new("measured");
    let mut batches = Vec::new();
    let mut origin = builder.origin(&Origin::default(), &source);
    let (mut from, mut at) = (0, 0);
    let mut finish = |builder: &mut BatchBuilder, from: u64, to: u64| {
        let interval = Interval::new(source.clone(), Position::new(1, from), Position::new(1, to));
        let batch = builder.finish(vec![interval])?;
        batches.push(batch);
        Ok::<_, beeacon_record::BatchError>(builder.origin(&Origin::default(), &source))
    };
    for line in text.lines() {
        let position = Position::new(1, at);
        let about = Line {
            origin,
            timestamp_ns: 1,
            observed_timestamp_ns: 1,
            stream: Stream::Stdout,
            level: Level::Info,
            position,
        };
        builder.push(about, line.as_bytes());
        at += u64::try_from(line.len())? + 1;
        if builder.is_full() {
            origin = finish(&mut builder, from, at)?;
            from = at;
        }
    }
    finish(&mut builder, from, at)?;
    Ok(batches)
}
