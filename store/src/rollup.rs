//! What the pollen filter took out of a file's lines, per minute, service and rule: counted once, when the file is written, so that
//! nobody has to go through the lines again to say it.
//!
//! A file's counts are in the catalog's table `file_redactions`, written in the transaction that makes the file live. They say the same as
//! its rows, for ever. A file without them was written by an earlier version, or has more than [`ROLLUP_BYTES_MAX`]: its rows are read.
//!
//! # Bytes
//! ```text
//! version  1 byte = 1
//! rules    a number, then each: its length in bytes, its UTF-8
//! services the same
//! entries  a number, then each: service (place in the list), minutes since 1970 less those of the entry before, rule (place in the
//!          list), count
//! ```
//! All numbers are LEB128, those of minutes zigzag. Entries are ordered by service, minute and rule; none is there twice.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt32Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray, TimestampNanosecondArray,
    UInt64Array,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use beeacon_record::schema::{self, Column};
use beeacon_record::varint;
use uuid::Uuid;

use crate::error::StoreError;
use crate::limits::ROLLUP_BYTES_MAX;

const VERSION: u8 = 1;
const MINUTE_NS: i64 = 60 * 1_000_000_000;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("minute", schema::timestamp(), false),
        Field::new("service", schema::dictionary(), false),
        Field::new("rule", DataType::Utf8, false),
        Field::new("count", DataType::UInt64, false),
    ]))
});

/// The columns of counted redactions: `minute`, `service`, `rule`, `count`.
pub fn redaction_schema() -> SchemaRef {
    SCHEMA.clone()
}

/// Counts of files.
#[derive(Clone, Debug)]
pub struct Redactions {
    /// The counts, of [`redaction_schema`]; one of the same minute, service and rule may come from several files.
    pub rows: RecordBatch,
    /// The files that were counted.
    pub files: HashSet<Uuid>,
}

/// One count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    service: u32,
    minute: i64,
    rule: u32,
    count: u64,
}

/// Counts rows, which come ordered by service and time.
pub(crate) struct Counting<'a> {
    parts: Vec<Part<'a>>,
    rules: Vec<&'a str>,
    rule_places: HashMap<&'a str, u32>,
    /// Counts of the current service and minute, by rule.
    current: Vec<Option<u64>>,
    touched: Vec<u32>,
    at: Option<(u32, i64)>,
    entries: Vec<Entry>,
}

/// The redactions of a batch, by row.
struct Part<'a> {
    ends: &'a [i32],
    rules: &'a StringArray,
    counts: &'a [u32],
}

impl<'a> Part<'a> {
    fn of(records: &'a RecordBatch) -> Option<Self> {
        let lists = records.column(Column::Redactions.index()).as_list_opt::<i32>()?;
        let entries = lists.values().as_struct_opt()?;
        let counts = entries.column(1).as_primitive_opt::<UInt32Type>()?;
        let rules = entries.column(0).as_string_opt::<i32>()?;
        Some(Part { ends: lists.value_offsets(), rules, counts: counts.values() })
    }

    fn of_row(&self, row: usize) -> impl Iterator<Item = (&'a str, u32)> + use<'a> {
        let (ends, rules, counts) = (self.ends, self.rules, self.counts);
        let bound = |at: usize| ends.get(at).and_then(|end| usize::try_from(*end).ok()).unwrap_or(0);
        (bound(row)..bound(row + 1).min(rules.len()).min(counts.len()))
            .map(move |index| (rules.value(index), counts.get(index).copied().unwrap_or(0)))
    }
}

impl<'a> Counting<'a> {
    /// Counts rows of these batches.
    ///
    /// # Errors
    /// When one is not of the log schema.
    pub(crate) fn of(parts: &[&'a RecordBatch]) -> Result<Self, StoreError> {
        let parts = parts.iter().map(|part| Part::of(part)).collect::<Option<Vec<_>>>();
        let parts = parts.ok_or(StoreError::CatalogContent { what: "column of redactions" })?;
        Ok(Counting {
            parts,
            rules: Vec::new(),
            rule_places: HashMap::new(),
            current: Vec::new(),
            touched: Vec::new(),
            at: None,
            entries: Vec::new(),
        })
    }

    /// Counts a row.
    pub(crate) fn row(&mut self, service: u32, timestamp_ns: i64, part: usize, row: usize) {
        let Some(part) = self.parts.get(part) else { return };
        let mut found = part.of_row(row).peekable();
        if found.peek().is_none() {
            return;
        }
        let at = (service, timestamp_ns.div_euclid(MINUTE_NS));
        if self.at != Some(at) {
            self.next(Some(at));
        }
        for (rule, count) in found {
            let place = match self.rule_places.get(rule) {
                Some(place) => *place,
                None => {
                    let place = u32::try_from(self.rules.len()).unwrap_or(u32::MAX);
                    self.rules.push(rule);
                    self.rule_places.insert(rule, place);
                    self.current.push(None);
                    place
                }
            };
            if let Some(current) = self.current.get_mut(place as usize) {
                if current.is_none() {
                    self.touched.push(place);
                }
                *current = Some(current.unwrap_or(0) + u64::from(count));
            }
        }
    }

    /// Ends the counts of a service and minute.
    fn next(&mut self, at: Option<(u32, i64)>) {
        if let Some((service, minute)) = std::mem::replace(&mut self.at, at) {
            self.touched.sort_unstable();
            for rule in self.touched.drain(..) {
                let count = self.current.get_mut(rule as usize).and_then(Option::take).unwrap_or(0);
                self.entries.push(Entry { service, minute, rule, count });
            }
        }
    }

    /// The counts as bytes, by these names of services; none when they are too many.
    pub(crate) fn finish(mut self, services: &[String]) -> Option<Vec<u8>> {
        self.next(None);
        let mut places: Vec<u32> = self.entries.iter().map(|entry| entry.service).collect();
        places.dedup();
        let names: Option<Vec<&str>> =
            places.iter().map(|place| services.get(*place as usize).map(String::as_str)).collect();
        let mut bytes = vec![VERSION];
        for list in [&self.rules, &names?] {
            varint::write(list.len() as u64, &mut bytes);
            for text in list {
                varint::write(text.len() as u64, &mut bytes);
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        varint::write(self.entries.len() as u64, &mut bytes);
        let (mut before, mut place) = (0_i64, 0_usize);
        for entry in &self.entries {
            // Services come in the order of their list.
            while places.get(place).is_some_and(|service| *service != entry.service) {
                place += 1;
            }
            varint::write(place as u64, &mut bytes);
            let step = entry.minute.wrapping_sub(before);
            varint::write((step.wrapping_shl(1) ^ (step >> 63)).cast_unsigned(), &mut bytes);
            varint::write(u64::from(entry.rule), &mut bytes);
            varint::write(entry.count, &mut bytes);
            before = entry.minute;
        }
        (bytes.len() <= ROLLUP_BYTES_MAX).then_some(bytes)
    }
}

/// Reads what [`Counting::finish`] wrote.
struct Reading<'a>(&'a [u8]);

impl<'a> Reading<'a> {
    fn number(&mut self) -> Option<u64> {
        varint::read(&mut self.0)
    }

    fn count(&mut self) -> Option<usize> {
        // Nothing takes less than a byte, so that a damaged number reserves no memory.
        usize::try_from(self.number()?).ok().filter(|count| *count <= self.0.len())
    }

    fn texts(&mut self) -> Option<Vec<&'a str>> {
        let count = self.count()?;
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            let bytes = self.count()?;
            let (text, rest) = self.0.split_at_checked(bytes)?;
            self.0 = rest;
            texts.push(std::str::from_utf8(text).ok()?);
        }
        Some(texts)
    }
}

/// Counts of several files as rows of [`redaction_schema`], file by file.
#[derive(Default)]
pub(crate) struct Rows {
    files: HashSet<Uuid>,
    minutes: Vec<i64>,
    services: Vec<i32>,
    service_names: Vec<String>,
    service_places: HashMap<String, i32>,
    rules: Vec<Arc<str>>,
    rule_names: HashMap<String, Arc<str>>,
    counts: Vec<u64>,
}

impl Rows {
    /// Adds the counts of a file of the minutes that these times lie in. None is added when they cannot be read: the file is not counted.
    pub(crate) fn add(&mut self, file_id: Uuid, bytes: &[u8], time_ns: Option<(i64, i64)>) {
        let minutes = time_ns.map(|(from, to)| (from.div_euclid(MINUTE_NS).saturating_mul(MINUTE_NS), to));
        let length = self.minutes.len();
        if self.try_add(bytes, minutes).is_some() {
            self.files.insert(file_id);
        } else {
            self.minutes.truncate(length);
            self.services.truncate(length);
            self.rules.truncate(length);
            self.counts.truncate(length);
        }
    }

    fn try_add(&mut self, bytes: &[u8], wanted: Option<(i64, i64)>) -> Option<()> {
        let (version, rest) = bytes.split_first()?;
        let mut reading = Reading(rest);
        if *version != VERSION {
            return None;
        }
        let rules: Vec<Arc<str>> = reading.texts()?.into_iter().map(|rule| self.rule(rule)).collect();
        let services: Vec<i32> = reading.texts()?.into_iter().map(|service| self.service(service)).collect();
        let mut minute = 0_i64;
        for _ in 0..reading.count()? {
            let service = services.get(usize::try_from(reading.number()?).ok()?)?;
            let step = reading.number()?;
            minute = minute.wrapping_add((step >> 1).cast_signed() ^ -(step & 1).cast_signed());
            let rule = rules.get(usize::try_from(reading.number()?).ok()?)?;
            let count = reading.number()?;
            let minute_ns = minute.checked_mul(MINUTE_NS)?;
            if wanted.is_none_or(|(from, to)| (from..=to).contains(&minute_ns)) {
                self.minutes.push(minute_ns);
                self.services.push(*service);
                self.rules.push(Arc::clone(rule));
                self.counts.push(count);
            }
        }
        reading.0.is_empty().then_some(())
    }

    fn rule(&mut self, rule: &str) -> Arc<str> {
        if let Some(known) = self.rule_names.get(rule) {
            return Arc::clone(known);
        }
        let name: Arc<str> = rule.into();
        self.rule_names.insert(rule.to_owned(), Arc::clone(&name));
        name
    }

    fn service(&mut self, service: &str) -> i32 {
        if let Some(known) = self.service_places.get(service) {
            return *known;
        }
        let place = i32::try_from(self.service_names.len()).unwrap_or(i32::MAX);
        self.service_names.push(service.to_owned());
        self.service_places.insert(service.to_owned(), place);
        place
    }

    /// All of them.
    ///
    /// # Errors
    /// When Arrow refuses them.
    pub(crate) fn finish(self) -> Result<Redactions, StoreError> {
        let services = Int32Array::from(self.services);
        let names: ArrayRef = Arc::new(StringArray::from(self.service_names));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampNanosecondArray::from(self.minutes).with_timezone("UTC")),
            Arc::new(DictionaryArray::<Int32Type>::try_new(services, names)?),
            Arc::new(StringArray::from_iter_values(self.rules.iter().map(|rule| &**rule))),
            Arc::new(UInt64Array::from(self.counts)),
        ];
        Ok(Redactions { rows: RecordBatch::try_new(redaction_schema(), columns)?, files: self.files })
    }
}

#[cfg(test)]
mod tests {
    use beeacon_record::batch::redactions_array;

    use super::*;
    use crate::tests::{NOON_NS, batch};

    const FILE: Uuid = Uuid::from_u128(7);

    /// A row: its service's place, its time, and what was taken out of it.
    type Row<'a> = (u32, i64, &'a [(&'a str, u32)]);

    /// The counts of rows, in this order.
    fn counted(rows: &[Row<'_>], services: &[&str]) -> Option<Vec<u8>> {
        let times: Vec<i64> = rows.iter().map(|(_, time_ns, _)| *time_ns).collect();
        let found = rows.iter().enumerate();
        let found =
            found.flat_map(|(row, (_, _, found))| found.iter().map(move |(rule, n)| (row, *rule, *n)));
        let redactions = redactions_array(rows.len(), found).unwrap();
        let batch = batch("web", 1, &times);
        let batch = batch.get().clone().with_column(Column::Redactions, Arc::new(redactions)).unwrap();
        let records = batch.with_tenant("default").unwrap();
        let parts = [&records];
        let mut counting = Counting::of(&parts).unwrap();
        for (row, (service, time_ns, _)) in rows.iter().enumerate() {
            counting.row(*service, *time_ns, 0, row);
        }
        counting.finish(&services.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    /// Each count as text: minutes from noon on, service, rule, count.
    fn shown(bytes: &[u8], time_ns: Option<(i64, i64)>) -> Vec<String> {
        let mut rows = Rows::default();
        rows.add(FILE, bytes, time_ns);
        let Redactions { rows, files } = rows.finish().unwrap();
        assert!(files.contains(&FILE) || rows.num_rows() == 0);
        let minutes = rows.column(0).as_primitive::<arrow_array::types::TimestampNanosecondType>();
        let services = rows.column(1).as_dictionary::<Int32Type>();
        let services = services.downcast_dict::<StringArray>().unwrap();
        let (rules, counts) = (
            rows.column(2).as_string::<i32>(),
            rows.column(3).as_primitive::<arrow_array::types::UInt64Type>(),
        );
        let services: Vec<&str> = services.into_iter().flatten().collect();
        (0..rows.num_rows())
            .map(|row| {
                let minute = (minutes.value(row) - NOON_NS) / MINUTE_NS;
                format!("{minute} {} {} {}", services[row], rules.value(row), counts.value(row))
            })
            .collect()
    }

    /// Rows of two services over some minutes.
    fn example() -> Vec<u8> {
        let at = |seconds: i64| NOON_NS + seconds * 1_000_000_000;
        let rows: [Row<'_>; 7] = [
            (0, at(1), &[("email", 1), ("iban", 2), ("email", 4)]),
            (0, at(2), &[]),
            (0, at(59), &[("email", 1)]),
            (0, at(600), &[("iban", 1)]),
            (1, at(0), &[]),
            (2, at(-1), &[("zero", 0)]),
            (2, at(3), &[("email", 300)]),
        ];
        counted(&rows, &["db", "silent", "web"]).unwrap()
    }

    #[test]
    fn counts_are_what_the_rows_say_per_minute_service_and_rule() {
        let all = ["0 db email 6", "0 db iban 2", "10 db iban 1", "-1 web zero 0", "0 web email 300"];
        assert_eq!(shown(&example(), None), all);
        let minute = Some((NOON_NS + 5, NOON_NS + 7));
        assert_eq!(shown(&example(), minute), [all[0], all[1], all[4]]);
    }

    /// Version 1, for ever.
    #[test]
    fn the_bytes_are_as_documented() {
        let hex: String = example().iter().map(|byte| format!("{byte:02x}")).collect();
        let lists = "01 03 05656d61696c 046962616e 047a65726f 02 026462 03776562";
        let entries = "05 00e0a5c41c0006 00000102 00140101 01150200 010200ac02";
        assert_eq!(hex, format!("{lists}{entries}").replace(' ', ""));
        assert_eq!(counted(&[(0, NOON_NS, &[])], &["web"]).unwrap(), [1, 0, 0, 0]);
    }

    #[test]
    fn damaged_counts_and_those_of_a_newer_version_are_not_counted() {
        let whole = example();
        let newer: Vec<u8> = [&[2][..], &whole[1..]].concat();
        let longer: Vec<u8> = [&whole[..], &[0]].concat();
        let huge = [1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
        for bytes in cut.chain([newer, longer, huge.to_vec()]) {
            let mut rows = Rows::default();
            rows.add(FILE, &bytes, None);
            let read = rows.finish().unwrap();
            assert!(read.files.is_empty() && read.rows.num_rows() == 0, "{bytes:?}");
        }
    }

    #[test]
    fn too_many_counts_are_left_out() {
        let names: Vec<String> = (0..20_000).map(|number| format!("rule-{number}-of-many")).collect();
        let found: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        assert!(counted(&[(0, NOON_NS, &found)], &["web"]).is_none());
    }
}
