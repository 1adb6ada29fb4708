//! Cuts a frame in two where the collector, or what stands before it, does not take it whole.
//!
//! What always holds: every row is in exactly one half; the halves' intervals together cover what the frame's covered, and the
//! second of one source starts where the first ends. Pure.

use std::collections::HashMap;

use beeacon_record::schema::Column;
use beeacon_record::{Epoch, Frame, FrameEncoder, Interval, Position, Scrubbed, Source};

use super::SpoolError;

/// The halves of a frame; none when it has a single row, or none, and so cannot be cut.
pub(crate) fn halves(
    frame: &Frame,
    intervals: &[Interval],
    encoder: &mut FrameEncoder,
) -> Result<Option<(Frame, Frame)>, SpoolError> {
    let batch = frame.decode()?;
    let rows = rows(&batch)?;
    if rows.len() < 2 {
        return Ok(None);
    }
    let sources: Vec<&Source> =
        intervals.iter().map(|i| &i.source).filter(|s| rows.iter().any(|(source, _)| source == *s)).collect();
    let pivots: HashMap<&Source, Position> = match sources.as_slice() {
        [only] => match pivot(&rows) {
            Some(pivot) => HashMap::from([(*only, pivot)]),
            None => return Ok(None),
        },
        // Half of the sources whole, the others not at all.
        many => many
            .iter()
            .enumerate()
            .map(|(index, source)| {
                let pivot =
                    if index < many.len() / 2 { Position::new(u64::MAX, u64::MAX) } else { Position::START };
                (*source, pivot)
            })
            .collect(),
    };
    let is_first =
        |source: &Source, position: Position| pivots.get(source).is_none_or(|pivot| position < *pivot);
    let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
    for interval in intervals {
        match pivots.get(&interval.source) {
            Some(pivot) if *pivot == Position::START => seconds.push(interval.clone()),
            Some(pivot) if *pivot < interval.to => {
                let to = (*pivot).max(interval.from);
                let mut first = interval.clone();
                first.to = to;
                first.is_final = false;
                first.dropped_rows = 0;
                // Lines that were open before and come in the second half stay open.
                let later = rows.iter().filter(|(source, at)| *source == interval.source && at >= pivot);
                let waiting = later.map(|(_, at)| *at).filter(|at| *at < to);
                first.open = interval.open.iter().copied().filter(|open| *open < to).chain(waiting).collect();
                let mut second = interval.clone();
                second.from = to;
                second.gap = None;
                firsts.push(first);
                seconds.push(second);
            }
            _ => firsts.push(interval.clone()),
        }
    }
    let half = |wanted: bool, intervals: Vec<Interval>, encoder: &mut FrameEncoder| {
        let keep = |row: usize| rows.get(row).is_some_and(|(source, at)| is_first(source, *at) == wanted);
        let kept = batch.retain(keep)?;
        part(&kept, intervals, encoder)
    };
    let first = half(true, firsts, encoder)?;
    let second = half(false, seconds, encoder)?;
    Ok(Some((first, second)))
}

/// The frame without its rows, under these intervals.
pub(crate) fn emptied(
    frame: &Frame,
    intervals: Vec<Interval>,
    encoder: &mut FrameEncoder,
) -> Result<Frame, SpoolError> {
    part(&frame.decode()?.retain(|_| false)?, intervals, encoder)
}

fn part(
    batch: &Scrubbed<beeacon_record::Batch>,
    intervals: Vec<Interval>,
    encoder: &mut FrameEncoder,
) -> Result<Frame, SpoolError> {
    let whole = Frame::parse(encoder.encode(batch)?)?;
    Ok(Frame::parse(whole.readdress(Epoch::default(), intervals)?)?)
}

/// The position that divides one source's rows: the middle one, or the first that is higher than the lowest.
fn pivot(rows: &[(Source, Position)]) -> Option<Position> {
    let mut positions: Vec<Position> = rows.iter().map(|(_, position)| *position).collect();
    positions.sort_unstable();
    positions.dedup();
    if positions.len() < 2 { None } else { positions.get(positions.len() / 2).copied() }
}

/// Every row's source and position.
fn rows(batch: &Scrubbed<beeacon_record::Batch>) -> Result<Vec<(Source, Position)>, SpoolError> {
    let (keys, names) = batch.get().dictionary_column(Column::Source)?;
    let names: Vec<Option<Source>> =
        names.iter().map(|name| name.and_then(|name| Source::new(name).ok())).collect();
    let source = |key: &i32| usize::try_from(*key).ok().and_then(|key| names.get(key)?.clone());
    let rows = keys.values().iter().zip(batch.get().positions());
    Ok(rows.filter_map(|(key, position)| Some((source(key)?, position))).collect())
}

#[cfg(test)]
mod tests {
    use beeacon_record::{AgentId, BatchBuilder, Level, Line, Origin, RuleSetId, Scrubbed, Stream};

    use super::*;

    fn frame(rows: &[(&str, u64)], encoder: &mut FrameEncoder) -> Frame {
        let mut builder = BatchBuilder::new("a");
        let mut intervals: Vec<Interval> = Vec::new();
        for (name, at) in rows {
            let source = Source::new(*name).unwrap();
            let origin = builder.origin(&Origin::default(), &source);
            let position = Position::new(1, *at);
            let line = Line {
                origin,
                timestamp_ns: 1,
                observed_timestamp_ns: 2,
                stream: Stream::Stdout,
                level: Level::Info,
                position,
            };
            builder.push(line, at.to_string().as_bytes());
            if !intervals.iter().any(|interval| interval.source == source) {
                let mut interval = Interval::new(source, Position::new(1, 0), Position::new(1, 1000));
                interval.is_final = true;
                interval.cursor = vec![7];
                intervals.push(interval);
            }
        }
        let batch = Scrubbed::seal(builder.finish(intervals).unwrap(), RuleSetId(1));
        Frame::parse(encoder.encode(&batch).unwrap()).unwrap()
    }

    fn messages(frame: &Frame) -> Vec<String> {
        frame.decode().unwrap().get().messages().iter().flatten().map(str::to_owned).collect()
    }

    #[test]
    fn halves_hold_every_row_once_and_their_intervals_touch() {
        let mut encoder = FrameEncoder::new(AgentId::from_bytes([1; 16]), Epoch(0), 0, 1).unwrap();
        // An open line of one stream comes after a later line of the other, so rows are not sorted.
        let whole = frame(&[("file:a", 10), ("file:a", 40), ("file:a", 20), ("file:a", 60)], &mut encoder);
        let (first, second) = halves(&whole, &whole.header().intervals, &mut encoder).unwrap().unwrap();
        assert_eq!(
            (messages(&first), messages(&second)),
            (vec!["10".into(), "20".into()], vec!["40".into(), "60".into()])
        );
        let [one] = first.header().intervals.as_slice() else { panic!() };
        let [two] = second.header().intervals.as_slice() else { panic!() };
        assert_eq!((one.from.minor, one.to, two.from, two.to.minor), (0, two.from, one.to, 1000));
        assert!(!one.is_final && two.is_final);
        let (third, fourth) = halves(&second, &second.header().intervals, &mut encoder).unwrap().unwrap();
        assert_eq!((messages(&third).len(), messages(&fourth).len()), (1, 1));
        assert!(halves(&third, &third.header().intervals, &mut encoder).unwrap().is_none());
    }

    #[test]
    fn several_sources_are_divided_whole() {
        let mut encoder = FrameEncoder::new(AgentId::from_bytes([1; 16]), Epoch(0), 0, 1).unwrap();
        let whole = frame(&[("file:a", 10), ("file:b", 5), ("file:a", 20), ("file:c", 6)], &mut encoder);
        let (first, second) = halves(&whole, &whole.header().intervals, &mut encoder).unwrap().unwrap();
        assert_eq!(
            (messages(&first), messages(&second)),
            (vec!["10".into(), "20".into()], vec!["5".into(), "6".into()])
        );
        assert_eq!((first.header().intervals.len(), second.header().intervals.len()), (1, 2));
        let none = emptied(&whole, whole.header().intervals.clone(), &mut encoder).unwrap();
        assert_eq!((messages(&none).len(), none.header().intervals.len()), (0, 3));
    }
}
