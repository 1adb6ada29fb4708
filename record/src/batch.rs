//! A batch of lines: being built, and built.
//!
//! The builder takes text straight into one contiguous buffer, so that a parser can unescape into it and the pollen filter
//! can scan it without looking at rows. Origins are given once and repeated by number. A built [`Batch`] is an Arrow record
//! batch ([`crate::schema`]) and the intervals it covers; it holds raw text, so it can be neither printed nor encoded.

use std::sync::Arc;

use arrow_array::builder::{
    ListBuilder, MapBuilder, MapFieldNames, StringBuilder, StructBuilder, UInt32Builder,
};
use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Int32Array, ListArray, MapArray, RecordBatch,
    StringArray, StructArray, TimestampNanosecondArray, UInt32Array, UInt64Array,
};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, Fields};

use crate::identity::{IdentityError, Interval, Position, Source};
use crate::level::{Level, Stream};
use crate::limits::{
    ATTRIBUTES_MAX, BATCH_ROWS_MAX, BATCH_SOURCES_MAX, BATCH_TEXT_BYTES_MAX, BATCH_TEXT_BYTES_TARGET,
    ORIGIN_FIELD_BYTES_MAX,
};
use crate::schema::{self, Column};

/// Why rows do not make a batch.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Arrow refused the columns.
    #[error("columns do not make a batch of the log schema")]
    Arrow(#[from] ArrowError),
    /// An interval is not well formed.
    #[error("interval is not well formed")]
    Interval(#[from] IdentityError),
    /// Two intervals of one batch name the same source.
    #[error("two intervals name the source {source_name}")]
    SourceTwice {
        /// The source.
        source_name: Source,
    },
    /// Too many sources.
    #[error("batch has {count} intervals, allowed are {BATCH_SOURCES_MAX}")]
    Sources {
        /// How many.
        count: usize,
    },
    /// Too many rows.
    #[error("batch has {count} rows, allowed are {BATCH_ROWS_MAX}")]
    Rows {
        /// How many.
        count: usize,
    },
    /// A row's source has no interval.
    #[error("row {row} belongs to no interval of the batch")]
    Homeless {
        /// The row's number in the batch.
        row: usize,
    },
    /// A row stands at or behind the end of its interval.
    #[error("row {row} stands at {position}, its interval ends at {to}")]
    Outside {
        /// The row's number in the batch.
        row: usize,
        /// Where it stands.
        position: Position,
        /// Where the interval ends.
        to: Position,
    },
    /// A column given to [`Batch::with_column`] has another length or type.
    #[error("column {column} does not fit the batch")]
    Column {
        /// Its name.
        column: &'static str,
    },
}

/// Where lines come from: what is the same for every line of a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Origin {
    /// The host's name.
    pub host: String,
    /// The compose service, else the container's name, else the file's name.
    pub service: String,
    /// The container's name.
    pub container: String,
    /// The container's id, 64 hexadecimal characters.
    pub container_id: String,
    /// The image's name.
    pub image: String,
    /// Chosen labels.
    pub labels: Vec<(String, String)>,
}

/// An origin's number in one builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginId(i32);

/// Everything about a line but its text.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Which origin, from [`BatchBuilder::origin`].
    pub origin: OriginId,
    /// When it was written, in nanoseconds since 1970.
    pub timestamp_ns: i64,
    /// When the agent read it, in nanoseconds since 1970.
    pub observed_timestamp_ns: i64,
    /// Which output it was written to.
    pub stream: Stream,
    /// Its severity.
    pub level: Level,
    /// Where it stood in its source.
    pub position: Position,
}

/// Builds one batch after another, keeping its buffers' sizes.
///
/// ```
/// use beeacon_record::{BatchBuilder, Interval, Level, Line, Origin, Position, Source, Stream};
/// let source = Source::new("docker-file:4f2a").unwrap();
/// let mut builder = BatchBuilder::new("agent-1");
/// let origin = builder.origin(&Origin { service: "web".into(), ..Origin::default() }, &source);
/// builder.push(
///     Line { origin, timestamp_ns: 1, observed_timestamp_ns: 2, stream: Stream::Stdout, level: Level::Info,
///            position: Position::new(1, 0) },
///     b"started",
/// );
/// let interval = Interval::new(source, Position::new(1, 0), Position::new(1, 80));
/// let batch = builder.finish(vec![interval]).unwrap();
/// assert_eq!(batch.rows(), 1);
/// ```
pub struct BatchBuilder {
    agent: String,
    text: Vec<u8>,
    offsets: Vec<i32>,
    timestamps: Vec<i64>,
    observed: Vec<i64>,
    origins: Vec<i32>,
    streams: Vec<i32>,
    levels: Vec<i32>,
    majors: Vec<u64>,
    minors: Vec<u64>,
    origin_table: Vec<(Origin, Source)>,
    attributes: Vec<(usize, String, String)>,
}

impl BatchBuilder {
    /// A builder for lines of one agent.
    pub fn new(agent: impl Into<String>) -> Self {
        BatchBuilder {
            agent: agent.into(),
            text: Vec::new(),
            offsets: vec![0],
            timestamps: Vec::new(),
            observed: Vec::new(),
            origins: Vec::new(),
            streams: Vec::new(),
            levels: Vec::new(),
            majors: Vec::new(),
            minors: Vec::new(),
            origin_table: Vec::new(),
            attributes: Vec::new(),
        }
    }

    /// The number of this origin and source in the batch being built. Numbers are void after [`BatchBuilder::finish`].
    pub fn origin(&mut self, origin: &Origin, source: &Source) -> OriginId {
        let found = self.origin_table.iter().position(|(o, s)| s == source && o == origin);
        let index = found.unwrap_or_else(|| {
            self.origin_table.push((origin.clone(), source.clone()));
            self.origin_table.len() - 1
        });
        OriginId(i32::try_from(index).unwrap_or(i32::MAX))
    }

    /// The text buffer: append the next line's bytes, then call [`BatchBuilder::finish_line`].
    pub fn text_mut(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// The bytes appended since the last finished line.
    pub fn unfinished_text(&self) -> &[u8] {
        let start = usize::try_from(self.last_offset()).unwrap_or(0);
        self.text.get(start..).unwrap_or(&[])
    }

    /// Ends the line whose text was appended to [`BatchBuilder::text_mut`]. Bytes that are not UTF-8 become U+FFFD when the
    /// batch is finished.
    pub fn finish_line(&mut self, line: Line) {
        self.offsets.push(i32::try_from(self.text.len()).unwrap_or(i32::MAX));
        self.timestamps.push(line.timestamp_ns);
        self.observed.push(line.observed_timestamp_ns);
        self.origins.push(line.origin.0);
        self.streams.push(line.stream as i32);
        self.levels.push(line.level as i32);
        self.majors.push(line.position.major);
        self.minors.push(line.position.minor);
    }

    /// Adds one line with its text.
    pub fn push(&mut self, line: Line, text: &[u8]) {
        self.text.extend_from_slice(text);
        self.finish_line(line);
    }

    /// Adds an attribute to the line last finished. Beyond [`ATTRIBUTES_MAX`] per line it is left out, and `false` returned.
    pub fn attribute(&mut self, key: &str, value: &str) -> bool {
        let Some(row) = self.rows().checked_sub(1) else { return false };
        let count = self.attributes.iter().rev().take_while(|(r, _, _)| *r == row).count();
        if count >= ATTRIBUTES_MAX {
            return false;
        }
        self.attributes.push((row, key.to_owned(), value.to_owned()));
        true
    }

    /// How many lines are finished.
    pub fn rows(&self) -> usize {
        self.timestamps.len()
    }

    /// How many bytes of text there are, unfinished ones included.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Whether the batch has reached the size at which it should be finished.
    pub fn is_full(&self) -> bool {
        self.text.len() >= BATCH_TEXT_BYTES_TARGET || self.rows() >= BATCH_ROWS_MAX
    }

    /// Whether a line of `bytes` more would exceed what one batch may hold.
    pub fn would_overflow(&self, bytes: usize) -> bool {
        self.text.len() + bytes > BATCH_TEXT_BYTES_MAX || self.rows() >= BATCH_ROWS_MAX
    }

    fn last_offset(&self) -> i32 {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Makes the batch and empties the builder. Text appended but not finished as a line is dropped.
    ///
    /// # Errors
    /// When rows and intervals do not fit together ([`BatchError`]); the builder is empty then, too.
    pub fn finish(&mut self, intervals: Vec<Interval>) -> Result<Batch, BatchError> {
        let text_end = usize::try_from(self.last_offset()).unwrap_or(0);
        self.text.truncate(text_end);
        let (bytes, rows) = (self.text.len(), self.rows());
        let text = std::mem::replace(&mut self.text, Vec::with_capacity(bytes));
        let offsets = std::mem::replace(&mut self.offsets, Vec::with_capacity(rows + 1));
        self.offsets.push(0);
        let origins = std::mem::replace(&mut self.origins, Vec::with_capacity(rows));
        let streams = std::mem::replace(&mut self.streams, Vec::with_capacity(rows));
        let levels = std::mem::replace(&mut self.levels, Vec::with_capacity(rows));
        let timestamps = std::mem::replace(&mut self.timestamps, Vec::with_capacity(rows));
        let observed = std::mem::replace(&mut self.observed, Vec::with_capacity(rows));
        let majors = std::mem::replace(&mut self.majors, Vec::with_capacity(rows));
        let minors = std::mem::replace(&mut self.minors, Vec::with_capacity(rows));
        let table = std::mem::take(&mut self.origin_table);
        let attributes = std::mem::take(&mut self.attributes);

        let origins = OriginColumns::new(origins, &table);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampNanosecondArray::from(timestamps).with_timezone("UTC")),
            Arc::new(TimestampNanosecondArray::from(observed).with_timezone("UTC")),
            origins.column(|(o, _)| clipped(&o.host))?,
            origins.column(|(o, _)| clipped(&o.service))?,
            origins.column(|(o, _)| clipped(&o.container))?,
            origins.column(|(o, _)| clipped(&o.container_id))?,
            origins.column(|(o, _)| clipped(&o.image))?,
            closed_set(streams, &Stream::ALL.map(Stream::as_str))?,
            closed_set(levels, &Level::ALL.map(Level::as_str))?,
            Arc::new(message_array(offsets, text)?),
            origins.column(|(o, _)| labels_json(&o.labels))?,
            Arc::new(attributes_array(rows, &attributes)?),
            Arc::new(empty_redactions(rows)?),
            origins.column(|_| self.agent.clone())?,
            origins.column(|(_, s)| s.as_str().to_owned())?,
            Arc::new(UInt64Array::from(majors)),
            Arc::new(UInt64Array::from(minors)),
        ];
        Batch::try_new(RecordBatch::try_new(schema::batch_schema(), columns)?, intervals)
    }
}

/// A field of an origin, cut to its limit at a character.
fn clipped(text: &str) -> String {
    if text.len() <= ORIGIN_FIELD_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(ORIGIN_FIELD_BYTES_MAX);
    text.get(..end).unwrap_or_default().to_owned()
}

/// Labels as a JSON object with sorted keys: equal label sets are equal text.
pub fn labels_json(labels: &[(String, String)]) -> String {
    let sorted: std::collections::BTreeMap<&str, String> =
        labels.iter().map(|(key, value)| (key.as_str(), clipped(value))).collect();
    serde_json::to_string(&sorted).unwrap_or_else(|_| "{}".to_owned())
}

/// The labels that [`labels_json`] wrote; none where the text is something else.
pub fn labels_of(json: &str) -> Vec<(String, String)> {
    let labels: std::collections::BTreeMap<String, String> = serde_json::from_str(json).unwrap_or_default();
    labels.into_iter().collect()
}

/// The origin's numbers per row, and the columns that follow from them.
struct OriginColumns<'a> {
    rows: Int32Array,
    table: &'a [(Origin, Source)],
}

impl<'a> OriginColumns<'a> {
    fn new(rows: Vec<i32>, table: &'a [(Origin, Source)]) -> Self {
        OriginColumns { rows: Int32Array::from(rows), table }
    }

    /// One dictionary column. Where every origin has its own value the row numbers are shared, not copied.
    fn column(&self, value: impl Fn(&(Origin, Source)) -> String) -> Result<ArrayRef, BatchError> {
        let mut values: Vec<String> = Vec::new();
        let mut codes: Vec<i32> = Vec::with_capacity(self.table.len());
        for entry in self.table {
            let text = value(entry);
            let code = values.iter().position(|known| *known == text).unwrap_or_else(|| {
                values.push(text);
                values.len() - 1
            });
            codes.push(i32::try_from(code).unwrap_or(i32::MAX));
        }
        let identity = codes.iter().enumerate().all(|(index, code)| usize::try_from(*code) == Ok(index));
        let keys = if identity {
            self.rows.clone()
        } else {
            let translate = |row: &i32| {
                usize::try_from(*row).ok().and_then(|row| codes.get(row)).copied().unwrap_or_default()
            };
            Int32Array::from(self.rows.values().iter().map(translate).collect::<Vec<_>>())
        };
        dictionary(keys, &values)
    }
}

fn closed_set(keys: Vec<i32>, values: &[&str]) -> Result<ArrayRef, BatchError> {
    dictionary(Int32Array::from(keys), values)
}

fn dictionary(keys: Int32Array, values: &[impl AsRef<str>]) -> Result<ArrayRef, BatchError> {
    let values = StringArray::from_iter_values(values.iter().map(AsRef::as_ref));
    Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::new(values))?))
}

/// The message column: the buffers as they are when they are UTF-8, else repaired line by line.
fn message_array(offsets: Vec<i32>, text: Vec<u8>) -> Result<StringArray, BatchError> {
    let buffer = OffsetBuffer::new(ScalarBuffer::from(offsets));
    let text = Buffer::from_vec(text);
    if let Ok(array) = StringArray::try_new(buffer.clone(), text.clone(), None) {
        return Ok(array);
    }
    let bytes = text.as_slice();
    let lines = buffer.windows(2).map(|pair| {
        let bound = |at: usize| pair.get(at).and_then(|o| usize::try_from(*o).ok()).unwrap_or(0);
        String::from_utf8_lossy(bytes.get(bound(0)..bound(1)).unwrap_or(&[]))
    });
    Ok(StringArray::from_iter_values(lines))
}

/// The attributes column from (row, key, value) in row order.
pub(crate) fn attributes_array(
    rows: usize,
    attributes: &[(usize, String, String)],
) -> Result<MapArray, BatchError> {
    let names = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
    let fields = schema::attribute_fields();
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
        .with_keys_field(field(&fields, 0))
        .with_values_field(field(&fields, 1));
    let mut rest = attributes;
    for row in 0..rows {
        while let Some(((_, key, value), tail)) = rest.split_first().filter(|((r, _, _), _)| *r == row) {
            builder.keys().append_value(key);
            builder.values().append_value(value);
            rest = tail;
        }
        builder.append(true)?;
    }
    Ok(builder.finish())
}

#[expect(clippy::indexing_slicing, reason = "both field lists are ours and have two fields")]
fn field(fields: &Fields, index: usize) -> Arc<arrow_schema::Field> {
    fields[index].clone()
}

/// A redactions column that says nothing was found.
pub(crate) fn empty_redactions(rows: usize) -> Result<ListArray, BatchError> {
    redactions_array(rows, std::iter::empty())
}

/// A redactions column of `rows` rows from (row, rule, count) in row order.
///
/// # Errors
/// When a row's number is not below `rows` or the numbers fall.
pub fn redactions_array<'a>(
    rows: usize,
    entries: impl Iterator<Item = (usize, &'a str, u32)>,
) -> Result<ListArray, BatchError> {
    let item = StructBuilder::new(
        schema::redaction_fields(),
        vec![Box::new(StringBuilder::new()), Box::new(UInt32Builder::new())],
    );
    let mut builder = ListBuilder::new(item).with_field(schema::redactions_item());
    let mut done = 0;
    let misplaced = || BatchError::Column { column: Column::Redactions.name() };
    for (row, rule, count) in entries {
        if row < done || row >= rows {
            return Err(misplaced());
        }
        for _ in done..row {
            builder.append(true);
        }
        done = row;
        let item = builder.values();
        item.field_builder::<StringBuilder>(0).ok_or_else(misplaced)?.append_value(rule);
        item.field_builder::<UInt32Builder>(1).ok_or_else(misplaced)?.append_value(count);
        item.append(true);
    }
    for _ in done..rows {
        builder.append(true);
    }
    Ok(builder.finish())
}

/// Rows of the log schema without their tenant, and the intervals they cover. Raw until the pollen filter has sealed it:
/// without `Debug` on purpose.
#[derive(Clone)]
pub struct Batch {
    records: RecordBatch,
    intervals: Vec<Interval>,
}

impl Batch {
    /// Takes rows of [`schema::batch_schema`] and one interval per source.
    ///
    /// # Errors
    /// When the schema differs, a row has no interval or stands behind its end, or an interval is malformed.
    pub fn try_new(records: RecordBatch, intervals: Vec<Interval>) -> Result<Self, BatchError> {
        if records.schema().fields() != schema::batch_schema().fields() {
            return Err(BatchError::Column { column: "schema" });
        }
        if records.num_rows() > BATCH_ROWS_MAX {
            return Err(BatchError::Rows { count: records.num_rows() });
        }
        if intervals.len() > BATCH_SOURCES_MAX {
            return Err(BatchError::Sources { count: intervals.len() });
        }
        for (index, interval) in intervals.iter().enumerate() {
            interval.check()?;
            if intervals.iter().take(index).any(|earlier| earlier.source == interval.source) {
                return Err(BatchError::SourceTwice { source_name: interval.source.clone() });
            }
        }
        let batch = Batch { records, intervals };
        batch.check_rows()?;
        Ok(batch)
    }

    fn check_rows(&self) -> Result<(), BatchError> {
        let (keys, values) = self.dictionary_column(Column::Source)?;
        let ends: Vec<Option<Position>> = values
            .iter()
            .map(|name| self.intervals.iter().find(|i| Some(i.source.as_str()) == name).map(|i| i.to))
            .collect();
        for (row, (key, position)) in keys.values().iter().zip(self.positions()).enumerate() {
            let end = usize::try_from(*key).ok().and_then(|key| ends.get(key)).copied().flatten();
            match end {
                None => return Err(BatchError::Homeless { row }),
                Some(to) if position >= to => return Err(BatchError::Outside { row, position, to }),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The rows.
    pub fn records(&self) -> &RecordBatch {
        &self.records
    }

    /// What the batch covers.
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// For a filter that drops rows: to count them where they would have stood.
    pub fn intervals_mut(&mut self) -> &mut [Interval] {
        &mut self.intervals
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.records.num_rows()
    }

    /// One column.
    pub fn column(&self, column: Column) -> &ArrayRef {
        self.records.column(column.index())
    }

    /// The message column: offsets into one contiguous text buffer.
    ///
    /// # Panics
    /// Never: [`Batch::try_new`] checked the type.
    pub fn messages(&self) -> &StringArray {
        self.typed(Column::Message)
    }

    /// The attributes column.
    pub fn attributes(&self) -> &MapArray {
        self.typed(Column::Attributes)
    }

    /// How much was redacted of each source of which something was.
    pub fn redactions_by_source(&self) -> Vec<(String, u64)> {
        let redactions = self.redactions();
        let entries = redactions.values().as_any().downcast_ref::<StructArray>();
        let counts = entries.and_then(|entries| entries.column(1).as_any().downcast_ref::<UInt32Array>());
        let (Some(counts), Ok((keys, names))) = (counts, self.dictionary_column(Column::Source)) else {
            return Vec::new();
        };
        if counts.is_empty() {
            return Vec::new();
        }
        let mut sums = vec![0u64; names.len()];
        for (key, bounds) in keys.values().iter().zip(redactions.value_offsets().windows(2)) {
            let bound =
                |at: usize| bounds.get(at).and_then(|bound| usize::try_from(*bound).ok()).unwrap_or(0);
            let of_row = counts.values().get(bound(0)..bound(1)).unwrap_or_default();
            if let Some(sum) = usize::try_from(*key).ok().and_then(|key| sums.get_mut(key)) {
                *sum += of_row.iter().map(|count| u64::from(*count)).sum::<u64>();
            }
        }
        let named = names.iter().zip(sums).filter(|(_, sum)| *sum > 0);
        named.map(|(name, sum)| (name.unwrap_or_default().to_owned(), sum)).collect()
    }

    /// The attributes of one row, by key; none for a row that is not there.
    pub fn attributes_of(&self, row: usize) -> Vec<(String, String)> {
        let attributes = self.attributes();
        if row >= attributes.len() || attributes.is_null(row) || attributes.value_length(row) == 0 {
            return Vec::new();
        }
        let entries = attributes.value(row);
        let text = |column: usize| entries.column(column).as_any().downcast_ref::<StringArray>();
        let Some((keys, values)) = text(0).zip(text(1)) else { return Vec::new() };
        let owned = |text: Option<&str>| text.unwrap_or_default().to_owned();
        keys.iter().zip(values).map(|(key, value)| (owned(key), owned(value))).collect()
    }

    /// The redactions column.
    pub fn redactions(&self) -> &ListArray {
        self.typed(Column::Redactions)
    }

    /// The timestamps, in nanoseconds since 1970.
    pub fn timestamps_ns(&self) -> &[i64] {
        self.typed::<TimestampNanosecondArray>(Column::Timestamp).values()
    }

    /// Every row's position, in row order.
    pub fn positions(&self) -> impl ExactSizeIterator<Item = Position> + '_ {
        let majors = self.typed::<UInt64Array>(Column::PositionMajor).values().iter();
        let minors = self.typed::<UInt64Array>(Column::PositionMinor).values().iter();
        majors.zip(minors).map(|(major, minor)| Position::new(*major, *minor))
    }

    /// A dictionary column's keys and values.
    ///
    /// # Errors
    /// When the column is not a dictionary.
    pub fn dictionary_column(&self, column: Column) -> Result<(&Int32Array, &StringArray), BatchError> {
        let misfit = || BatchError::Column { column: column.name() };
        let array = self.column(column).as_any().downcast_ref::<DictionaryArray<Int32Type>>();
        let array = array.ok_or_else(misfit)?;
        let values = array.values().as_any().downcast_ref::<StringArray>().ok_or_else(misfit)?;
        Ok((array.keys(), values))
    }

    #[expect(clippy::expect_used, reason = "try_new compared the schema, so the column has this type")]
    fn typed<T: 'static>(&self, column: Column) -> &T {
        self.column(column).as_any().downcast_ref::<T>().expect("the schema was checked")
    }

    /// The same batch with another array in one column.
    ///
    /// # Errors
    /// When its length or type differs.
    pub fn with_column(self, column: Column, array: ArrayRef) -> Result<Self, BatchError> {
        let mut columns = self.records.columns().to_vec();
        let slot = columns.get_mut(column.index());
        let slot = slot.ok_or(BatchError::Column { column: column.name() })?;
        *slot = array;
        let records = RecordBatch::try_new(schema::batch_schema(), columns)
            .map_err(|_| BatchError::Column { column: column.name() })?;
        Ok(Batch { records, intervals: self.intervals })
    }

    /// The same batch with only the rows for which `keep` is true. Its intervals stay: what is left out counts as covered.
    ///
    /// # Errors
    /// When `keep` has another length.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self, BatchError> {
        let records = arrow_select::filter::filter_record_batch(&self.records, keep)?;
        Ok(Batch { records, intervals: self.intervals.clone() })
    }

    /// The rows and intervals of the sources that are wanted, in their order.
    ///
    /// # Errors
    /// Never for a batch that was checked; Arrow's error otherwise.
    pub fn of_sources(&self, wanted: impl Fn(&str) -> bool) -> Result<Self, BatchError> {
        let (keys, values) = self.dictionary_column(Column::Source)?;
        let is_wanted: Vec<bool> = values.iter().map(|name| name.is_some_and(&wanted)).collect();
        let keep = |key: &i32| {
            usize::try_from(*key).ok().and_then(|key| is_wanted.get(key)).copied().unwrap_or(false)
        };
        let keep = BooleanArray::from(keys.values().iter().map(keep).collect::<Vec<_>>());
        let records = arrow_select::filter::filter_record_batch(&self.records, &keep)?;
        let intervals = self.intervals.iter().filter(|interval| wanted(interval.source.as_str()));
        Batch::try_new(records, intervals.cloned().collect())
    }

    /// Batches that share no source as one, one behind the other.
    ///
    /// # Errors
    /// When they share a source or are too much for one batch.
    pub fn concat(parts: &[Batch]) -> Result<Self, BatchError> {
        let records = parts.iter().map(|part| &part.records);
        let records = arrow_select::concat::concat_batches(&schema::batch_schema(), records)?;
        Batch::try_new(records, parts.iter().flat_map(|part| part.intervals.iter().cloned()).collect())
    }

    /// The rows as they are stored: with their tenant.
    ///
    /// # Errors
    /// Never for a tenant name of sane length; Arrow's error otherwise.
    pub fn with_tenant(&self, tenant: &str) -> Result<RecordBatch, BatchError> {
        let mut columns = self.records.columns().to_vec();
        columns.push(dictionary(Int32Array::from(vec![0; self.rows()]), &[tenant])?);
        Ok(RecordBatch::try_new(schema::log_schema(), columns)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        Source::new("docker-file:4f2a").unwrap()
    }

    fn line(origin: OriginId, minor: u64) -> Line {
        Line {
            origin,
            timestamp_ns: 1_700_000_000_000_000_000,
            observed_timestamp_ns: 1_700_000_000_000_000_500,
            stream: Stream::Stderr,
            level: Level::Warn,
            position: Position::new(1, minor),
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_become_replacement_characters_in_their_own_line_only() {
        let mut builder = BatchBuilder::new("a");
        let origin = builder.origin(&Origin::default(), &source());
        builder.push(line(origin, 0), b"ok");
        builder.push(line(origin, 10), b"\xff!\xe2\x82");
        builder.push(line(origin, 20), "\u{ac}uro".as_bytes());
        let interval = Interval::new(source(), Position::new(1, 0), Position::new(1, 30));
        let batch = builder.finish(vec![interval]).unwrap();
        let messages: Vec<_> = batch.messages().iter().flatten().collect();
        assert_eq!(messages, ["ok", "\u{fffd}!\u{fffd}", "\u{ac}uro"]);
    }

    #[test]
    fn a_batch_is_taken_apart_by_sources_and_put_together_again() {
        let mut builder = BatchBuilder::new("a");
        let other = Source::new("docker-file:5b").unwrap();
        let web = builder.origin(&Origin { service: "web".into(), ..Origin::default() }, &source());
        let db = builder.origin(&Origin { service: "db".into(), ..Origin::default() }, &other);
        for minor in 0..3 {
            builder.push(line(web, minor), format!("web {minor}").as_bytes());
            builder.push(line(db, minor), format!("db {minor}").as_bytes());
        }
        let to = Position::new(1, 5);
        let interval = |source| Interval::new(source, Position::new(1, 0), to);
        let batch = builder.finish(vec![interval(source()), interval(other.clone())]).unwrap();
        let of = |name: &Source| batch.of_sources(|source| source == name.as_str()).unwrap();
        let parts = [of(&other), of(&source())];
        assert_eq!(parts.each_ref().map(|part| (part.rows(), part.intervals().len())), [(3, 1), (3, 1)]);
        let whole = Batch::concat(&parts).unwrap();
        let messages: Vec<_> = whole.messages().iter().flatten().collect();
        assert_eq!(messages, ["db 0", "db 1", "db 2", "web 0", "web 1", "web 2"]);
        assert_eq!(whole.intervals().len(), 2);
        let twice = Batch::concat(&[parts[0].clone(), parts[0].clone()]);
        assert!(matches!(twice, Err(BatchError::SourceTwice { .. })));
    }

    #[test]
    fn labels_are_read_as_they_were_written() {
        let labels = vec![("a".to_owned(), "x \"y\"".to_owned()), ("team".to_owned(), "pay".to_owned())];
        assert_eq!(labels_of(&labels_json(&labels)), labels);
        assert_eq!(labels_of("no json"), Vec::new());
    }

    #[test]
    fn columns_with_one_value_and_with_one_per_origin_are_right() {
        let mut builder = BatchBuilder::new("a");
        let other = Source::new("docker-file:5b").unwrap();
        let web = Origin { host: "h".into(), service: "web".into(), ..Origin::default() };
        let db = Origin { host: "h".into(), service: "db".into(), ..Origin::default() };
        let web = builder.origin(&web, &source());
        let db = builder.origin(&db, &other);
        builder.push(line(db, 0), b"1");
        builder.push(line(web, 0), b"2");
        let to = Position::new(1, 5);
        let intervals = vec![
            Interval::new(source(), Position::new(1, 0), to),
            Interval::new(other, Position::new(1, 0), to),
        ];
        let batch = builder.finish(intervals).unwrap();
        let service = |row: usize| {
            let (keys, values) = batch.dictionary_column(Column::Service).unwrap();
            values.value(usize::try_from(keys.value(row)).unwrap()).to_owned()
        };
        assert_eq!((service(0), service(1)), ("db".into(), "web".into()));
        assert_eq!(batch.dictionary_column(Column::Host).unwrap().1.len(), 1);
    }

    #[test]
    fn a_row_without_an_interval_and_a_row_behind_its_interval_are_refused() {
        let mut builder = BatchBuilder::new("a");
        let origin = builder.origin(&Origin::default(), &source());
        builder.push(line(origin, 7), b"x");
        assert!(matches!(builder.finish(vec![]), Err(BatchError::Homeless { row: 0 })));

        let origin = builder.origin(&Origin::default(), &source());
        builder.push(line(origin, 7), b"x");
        let interval = Interval::new(source(), Position::new(1, 0), Position::new(1, 7));
        assert!(matches!(builder.finish(vec![interval]), Err(BatchError::Outside { row: 0, .. })));
    }

    #[test]
    fn attributes_belong_to_the_line_they_were_added_to() {
        let mut builder = BatchBuilder::new("a");
        let origin = builder.origin(&Origin::default(), &source());
        builder.push(line(origin, 0), b"x");
        builder.push(line(origin, 1), b"y");
        assert!(builder.attribute("trace_id", "abc"));
        let interval = Interval::new(source(), Position::new(1, 0), Position::new(1, 30));
        let batch = builder.finish(vec![interval]).unwrap();
        assert_eq!(batch.attributes().value_length(0), 0);
        assert_eq!(batch.attributes().value_length(1), 1);
    }

    #[test]
    fn redactions_stand_at_their_rows() {
        let array = redactions_array(3, [(1, "email", 2), (1, "ssn", 1)].into_iter()).unwrap();
        assert_eq!((array.value_length(0), array.value_length(1), array.value_length(2)), (0, 2, 0));
        assert!(redactions_array(1, [(1, "email", 2)].into_iter()).is_err());
    }
}
