//! From a batch's rows to entries: labels, metadata, time, line. Pure, and the same for a row every time.

use std::collections::{HashMap, HashSet};

use arrow_array::{Array, Int32Array, MapArray, StringArray};
use beeacon_record::schema::Column;
use beeacon_record::{Batch, BatchError, Level};

use super::push::{FIXED_LABELS, Load, label_text, metadata_name, metadata_pair};
use crate::limits::{LOKI_METADATA_BYTES_MAX, LOKI_METADATA_FIELDS_MAX};

/// What every stream without a service is called, as Loki does.
const NO_SERVICE: &str = "unknown_service";

/// Metadata names that the collector sets. A container label or an attribute of one of these names, or of a label's, is
/// left out.
const FIXED_METADATA: [&str; 4] = ["container_id", "image", "level", "stream"];

/// A dictionary column.
struct Words<'a> {
    keys: &'a Int32Array,
    values: &'a StringArray,
}

impl<'a> Words<'a> {
    fn of(batch: &'a Batch, column: Column) -> Result<Self, BatchError> {
        let (keys, values) = batch.dictionary_column(column)?;
        Ok(Words { keys, values })
    }

    fn key(&self, row: usize) -> i32 {
        self.keys.values().get(row).copied().unwrap_or(-1)
    }

    fn text(&self, row: usize) -> &'a str {
        text(self.values, usize::try_from(self.key(row)).unwrap_or(usize::MAX))
    }
}

fn text(values: &StringArray, index: usize) -> &str {
    if index < values.len() { values.value(index) } else { "" }
}

/// Adds the wanted rows of a batch to a load, in their order.
///
/// # Errors
/// When a column is not as the schema says.
pub(crate) fn append(
    load: &mut Load,
    batch: &Batch,
    wanted: &[bool],
    extra_labels: &[(String, String)],
) -> Result<(), BatchError> {
    let [host, service, container] =
        [Column::Host, Column::Service, Column::Container].map(|column| Words::of(batch, column));
    let labels = [host?, service?, container?];
    let [id, image, stream, level, container_labels] =
        [Column::ContainerId, Column::Image, Column::Stream, Column::Level, Column::Labels]
            .map(|column| Words::of(batch, column));
    let metadata = [id?, image?, stream?, level?, container_labels?];
    let mut streams: HashMap<[i32; 3], usize> = HashMap::new();
    let mut pairs: HashMap<[i32; 5], Metadata> = HashMap::new();
    let mut own = Vec::new();
    for (row, timestamp_ns) in batch.timestamps_ns().iter().enumerate() {
        if wanted.get(row) != Some(&true) {
            continue;
        }
        let key = labels.each_ref().map(|words| words.key(row));
        let stream = *streams.entry(key).or_insert_with(|| {
            let texts = labels.each_ref().map(|words| words.text(row));
            load.stream(stream_labels(texts, extra_labels))
        });
        let key = metadata.each_ref().map(|words| words.key(row));
        let shared = pairs
            .entry(key)
            .or_insert_with(|| Metadata::of_origin(metadata.each_ref().map(|words| words.text(row))));
        own.clear();
        shared.clone_limits().add_attributes(batch.attributes(), row, &mut own);
        load.push(stream, *timestamp_ns, text(batch.messages(), row), &[&shared.bytes, &own]);
    }
    Ok(())
}

fn stream_labels([host, service, container]: [&str; 3], extra: &[(String, String)]) -> String {
    let service = if service.is_empty() { NO_SERVICE } else { service };
    let [container_name, host_name, service_name] = FIXED_LABELS;
    let fixed = [(container_name, container), (host_name, host), (service_name, service)];
    label_text(fixed.into_iter().chain(extra.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
}

/// The metadata that rows of one origin share, encoded, with the names it took.
struct Metadata {
    bytes: Vec<u8>,
    names: HashSet<String>,
}

impl Metadata {
    fn of_origin([container_id, image, stream, level, labels]: [&str; 5]) -> Self {
        let mut metadata = Metadata { bytes: Vec::new(), names: HashSet::new() };
        // Loki looks for a level itself where none is given.
        let level = if level == Level::Unknown.as_str() { "" } else { level };
        for (name, value) in FIXED_METADATA.into_iter().zip([container_id, image, level, stream]) {
            if !value.is_empty() {
                metadata_pair(name, value, &mut metadata.bytes);
            }
        }
        let reserved = FIXED_METADATA.into_iter().chain(FIXED_LABELS);
        metadata.names.extend(reserved.map(str::to_owned));
        let labels: std::collections::BTreeMap<String, String> =
            serde_json::from_str(labels).unwrap_or_default();
        let mut bytes = std::mem::take(&mut metadata.bytes);
        let mut room = Room::beside(&metadata, bytes.len());
        for (name, value) in labels {
            let name = metadata_name(&name);
            if room.takes(&name, &value) {
                metadata_pair(&name, &value, &mut bytes);
            }
        }
        let names = std::mem::take(&mut room.names);
        metadata.names.extend(names);
        metadata.bytes = bytes;
        metadata
    }

    fn clone_limits(&self) -> Room<'_> {
        Room::beside(self, self.bytes.len())
    }
}

/// What metadata may still take: each name once, so many fields and bytes.
struct Room<'a> {
    shared: &'a Metadata,
    names: HashSet<String>,
    bytes: usize,
}

impl<'a> Room<'a> {
    fn beside(shared: &'a Metadata, bytes: usize) -> Self {
        Room { shared, names: HashSet::new(), bytes }
    }

    fn takes(&mut self, name: &str, value: &str) -> bool {
        let bytes = self.bytes + name.len() + value.len();
        let fields = self.shared.names.len() + self.names.len();
        let fits = bytes <= LOKI_METADATA_BYTES_MAX && fields < LOKI_METADATA_FIELDS_MAX;
        if !fits || value.is_empty() || self.shared.names.contains(name) || self.names.contains(name) {
            return false;
        }
        self.bytes = bytes;
        self.names.insert(name.to_owned());
        true
    }

    fn add_attributes(mut self, attributes: &MapArray, row: usize, out: &mut Vec<u8>) {
        let offsets = attributes.value_offsets();
        let bound = |at: usize| offsets.get(at).and_then(|offset| usize::try_from(*offset).ok()).unwrap_or(0);
        let (Some(keys), Some(values)) = (
            attributes.keys().as_any().downcast_ref::<StringArray>(),
            attributes.values().as_any().downcast_ref::<StringArray>(),
        ) else {
            return;
        };
        for index in bound(row)..bound(row + 1) {
            let (name, value) = (metadata_name(text(keys, index)), text(values, index));
            if self.takes(&name, value) {
                metadata_pair(&name, value, out);
            }
        }
    }
}
