//! Scrubbing a batch: the message buffer in one scan, then attribute values, then labels.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Int32Array, MapArray, StringArray, StructArray,
};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use beeacon_record::batch::redactions_array;
use beeacon_record::schema::Column;
use beeacon_record::{Batch, Interval, Position, Source, Stream};

use crate::continuity::{Continuity, STREAMS};
use crate::engine::{Failed, within};
use crate::error::FilterError;
use crate::rewrite::{Flowing, Rewriter, Rewritten};
use crate::scan::Scratch;
use crate::statistics::{RuleCount, ScrubReport};

/// What a batch's parts add up to.
#[derive(Default)]
struct Sum {
    /// (row, rule) of everything found in rows.
    rows: Vec<(u32, u32)>,
    /// How often each rule found something, in rows or not.
    rules: Vec<u64>,
    /// Rows to leave out.
    dropped: Vec<u32>,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, rewritten: &Rewritten, row_of: impl Fn(u32) -> Option<u32>) {
        for (line, rule) in &rewritten.found {
            let number = usize::try_from(*rule).unwrap_or(usize::MAX);
            if self.rules.len() <= number {
                self.rules.resize(number + 1, 0);
            }
            if let Some(count) = self.rules.get_mut(number) {
                *count += 1;
            }
            self.rows.extend(row_of(*line).map(|row| (row, *rule)));
        }
        self.dropped.extend(rewritten.dropped.iter().filter_map(|line| row_of(*line)));
    }

    fn report<'a>(self, lines: usize, id_of: impl Fn(u32) -> &'a str) -> ScrubReport {
        let mut rows: Vec<u32> = self.rows.into_iter().map(|(row, _)| row).collect();
        rows.sort_unstable();
        rows.dedup();
        let mut dropped = self.dropped;
        dropped.sort_unstable();
        dropped.dedup();
        let counted = (0..).zip(self.rules).filter(|(_, count)| *count > 0);
        let mut counts: Vec<RuleCount> =
            counted.map(|(rule, count)| RuleCount { rule: id_of(rule).to_owned(), count }).collect();
        counts.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.rule.cmp(&b.rule)));
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        ScrubReport {
            lines: wide(lines),
            bytes: self.bytes,
            lines_redacted: wide(rows.len()),
            rows_dropped: wide(dropped.len()),
            counts,
        }
    }
}

/// Scrubs a batch.
pub(crate) fn scrub<'a>(
    rewriter: &Rewriter,
    id_of: impl Fn(u32) -> &'a str,
    mut batch: Batch,
    continuity: Option<&mut Continuity>,
    scratch: &mut Scratch,
) -> Result<(Batch, ScrubReport), Failed> {
    let mut sum = Sum::default();
    let lines = batch.rows();

    let rewritten = match continuity {
        Some(continuity) => messages(rewriter, &batch, continuity, scratch, &mut sum)?,
        None => strings(rewriter, batch.messages(), None, scratch, &mut sum)?,
    };
    sum.add(&rewritten, Some);
    if let Some(array) = column(rewritten)? {
        batch = batch.with_column(Column::Message, Arc::new(array))?;
    }
    if let Some(array) = attributes(rewriter, batch.attributes(), scratch, &mut sum)? {
        batch = batch.with_column(Column::Attributes, array)?;
    }
    if let Some(array) = labels(rewriter, &batch, scratch, &mut sum)? {
        batch = batch.with_column(Column::Labels, array)?;
    }
    if !sum.rows.is_empty() {
        sum.rows.sort_unstable();
        let entries = sum.rows.chunk_by(|one, next| one == next).filter_map(|alike| {
            let (row, rule) = alike.first()?;
            Some((usize::try_from(*row).ok()?, id_of(*rule), u32::try_from(alike.len()).ok()?))
        });
        let array = redactions_array(lines, entries)?;
        batch = batch.with_column(Column::Redactions, Arc::new(array))?;
    }
    if !sum.dropped.is_empty() {
        batch = leave_out(batch, &sum.dropped)?;
    }
    Ok((batch, sum.report(lines, id_of)))
}

/// Scans the messages, each as the next line of its source and stream.
fn messages(
    rewriter: &Rewriter,
    batch: &Batch,
    continuity: &mut Continuity,
    scratch: &mut Scratch,
    sum: &mut Sum,
) -> Result<Rewritten, Failed> {
    let (sources, names) = batch.dictionary_column(Column::Source)?;
    let (streams, stream_names) = batch.dictionary_column(Column::Stream)?;
    let intervals: HashMap<&str, &Interval> =
        batch.intervals().iter().map(|interval| (interval.source.as_str(), interval)).collect();
    let intervals = &intervals;
    let ends = |end: fn(&Interval) -> Position| {
        names.iter().flatten().map(move |name| (name, intervals.get(name).map(|interval| end(interval))))
    };
    let is_stderr: Vec<bool> =
        stream_names.iter().map(|name| name == Some(Stream::Stderr.as_str())).collect();
    let flow_of = |line: u32| {
        let key = |keys: &Int32Array| {
            let key = usize::try_from(line).ok().and_then(|line| keys.values().get(line).copied());
            key.and_then(|key| usize::try_from(key).ok()).unwrap_or(usize::MAX)
        };
        let stream = is_stderr.get(key(streams)).copied().unwrap_or(false);
        key(sources).saturating_mul(STREAMS).saturating_add(usize::from(stream))
    };
    let mut flows = continuity.begin(ends(|interval| interval.from));
    let rewritten = strings(rewriter, batch.messages(), Some((&mut flows, &flow_of)), scratch, sum)?;
    continuity.end(flows, ends(|interval| interval.to));
    Ok(rewritten)
}

/// Scans a string column. Its buffers are looked at as they are, also when it is a slice of larger ones.
fn strings(
    rewriter: &Rewriter,
    array: &StringArray,
    flows: Option<Flowing<'_>>,
    scratch: &mut Scratch,
    sum: &mut Sum,
) -> Result<Rewritten, Failed> {
    let offsets = array.value_offsets();
    let place = |offset: Option<&i32>| offset.and_then(|at| usize::try_from(*at).ok()).unwrap_or(0);
    let (first, last) = (place(offsets.first()), place(offsets.last()));
    let text = array.value_data().get(first..last).unwrap_or(&[]);
    sum.bytes += u64::try_from(text.len()).unwrap_or(0);
    if first == 0 {
        return Ok(rewriter.rewrite(text, offsets, flows, scratch)?);
    }
    let base = offsets.first().copied().unwrap_or(0);
    let moved: Vec<i32> = offsets.iter().map(|offset| offset - base).collect();
    Ok(rewriter.rewrite(text, &moved, flows, scratch)?)
}

/// The column of a rewritten text; nothing when nothing changed.
fn column(rewritten: Rewritten) -> Result<Option<StringArray>, Failed> {
    let Some((text, offsets)) = rewritten.text else { return Ok(None) };
    within(text.len())?;
    let buffer = OffsetBuffer::new(ScalarBuffer::from(offsets));
    let array = StringArray::try_new(buffer, Buffer::from_vec(text), None);
    array.map(Some).map_err(|_| Failed::Filter(FilterError::Column))
}

fn attributes(
    rewriter: &Rewriter,
    map: &MapArray,
    scratch: &mut Scratch,
    sum: &mut Sum,
) -> Result<Option<ArrayRef>, Failed> {
    let misfit = || Failed::Filter(FilterError::Column);
    let values = map.values().as_any().downcast_ref::<StringArray>().ok_or_else(misfit)?;
    let rewritten = strings(rewriter, values, None, scratch, sum)?;
    let ends = map.value_offsets();
    // A map that is a slice keeps its children whole: entries before and behind it belong to no row.
    let row_of = |entry: u32| {
        let entry = i32::try_from(entry).unwrap_or(i32::MAX);
        let after = ends.partition_point(|end| *end <= entry);
        (after > 0 && after < ends.len()).then(|| u32::try_from(after - 1).unwrap_or(u32::MAX))
    };
    sum.add(&rewritten, row_of);
    let Some(values) = column(rewritten)? else { return Ok(None) };
    let (field, offsets, entries, nulls, sorted) = map.clone().into_parts();
    let (fields, mut columns, entry_nulls) = entries.into_parts();
    *columns.get_mut(1).ok_or_else(misfit)? = Arc::new(values);
    let entries = StructArray::try_new(fields, columns, entry_nulls).map_err(|_| misfit())?;
    let map = MapArray::try_new(field, offsets, entries, nulls, sorted).map_err(|_| misfit())?;
    Ok(Some(Arc::new(map)))
}

fn labels(
    rewriter: &Rewriter,
    batch: &Batch,
    scratch: &mut Scratch,
    sum: &mut Sum,
) -> Result<Option<ArrayRef>, Failed> {
    let (keys, values) = batch.dictionary_column(Column::Labels)?;
    let rewritten = strings(rewriter, values, None, scratch, sum)?;
    // Labels belong to a container, not to a row; a rule that drops records leaves a marker here.
    sum.add(&rewritten, |_| None);
    let Some(values) = column(rewritten)? else { return Ok(None) };
    let array = DictionaryArray::<Int32Type>::try_new(keys.clone(), Arc::new(values));
    array
        .map(|array| -> Option<ArrayRef> { Some(Arc::new(array)) })
        .map_err(|_| Failed::Filter(FilterError::Column))
}

/// The batch without these rows, which are counted in the intervals of their sources.
fn leave_out(mut batch: Batch, rows: &[u32]) -> Result<Batch, Failed> {
    let mut keep = vec![true; batch.rows()];
    for row in rows {
        if let Some(slot) = usize::try_from(*row).ok().and_then(|row| keep.get_mut(row)) {
            *slot = false;
        }
    }
    let mut dropped: Vec<(Source, u32)> = Vec::new();
    {
        let (keys, values) = batch.dictionary_column(Column::Source)?;
        for (key, kept) in keys.values().iter().zip(&keep) {
            if *kept {
                continue;
            }
            let name =
                usize::try_from(*key).ok().filter(|key| *key < values.len()).map(|key| values.value(key));
            let Some(name) = name else { continue };
            match dropped.iter_mut().find(|(source, _)| source.as_str() == name) {
                Some((_, count)) => *count += 1,
                None => dropped.extend(Source::new(name).ok().map(|source| (source, 1))),
            }
        }
    }
    for interval in batch.intervals_mut() {
        if let Some((_, count)) = dropped.iter().find(|(source, _)| *source == interval.source) {
            interval.dropped_rows = interval.dropped_rows.saturating_add(*count);
        }
    }
    Ok(batch.filter(&BooleanArray::from(keep))?)
}

/// Scrubs a text of lines.
pub(crate) fn scrub_text<'a>(
    rewriter: &Rewriter,
    id_of: impl Fn(u32) -> &'a str,
    text: &str,
    continuity: &mut Continuity,
    scratch: &mut Scratch,
) -> Result<(String, ScrubReport), Failed> {
    within(text.len())?;
    // A line's end belongs to the scanned line here, which changes nothing for a rule: none matches over it but at the end.
    let mut buffer = Vec::with_capacity(text.len());
    let mut offsets = vec![0];
    let mut ended = Vec::new();
    for line in text.split_inclusive('\n') {
        let bare = line.strip_suffix('\n').unwrap_or(line);
        buffer.extend_from_slice(bare.as_bytes());
        offsets.push(within(buffer.len())?);
        ended.push(bare.len() < line.len());
    }
    let mut sum = Sum { bytes: u64::try_from(text.len()).unwrap_or(0), ..Sum::default() };
    let mut flows = continuity.begin_text();
    let rewritten = rewriter.rewrite(&buffer, &offsets, Some((&mut flows, &|_| 0)), scratch)?;
    continuity.end_text(flows);
    sum.add(&rewritten, Some);
    let dropped = rewritten.dropped.clone();
    let Some((clean, bounds)) = rewritten.text else {
        return Ok((text.to_owned(), sum.report(ended.len(), id_of)));
    };
    let mut out = Vec::with_capacity(clean.len() + ended.len());
    for (line, (pair, ended)) in bounds.windows(2).zip(&ended).enumerate() {
        if u32::try_from(line).is_ok_and(|line| dropped.contains(&line)) {
            continue;
        }
        let place = |index: usize| pair.get(index).and_then(|at| usize::try_from(*at).ok()).unwrap_or(0);
        out.extend_from_slice(clean.get(place(0)..place(1)).unwrap_or(&[]));
        if *ended {
            out.push(b'\n');
        }
    }
    let out = String::from_utf8(out).map_err(|_| Failed::Filter(FilterError::Column))?;
    Ok((out, sum.report(ended.len(), id_of)))
}
