//! The search for planted secrets: in every file, as it lies there and decoded, since frames and Parquet pages are compressed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;
use arrow_array::{Array, ArrayRef, RecordBatch};
use beeacon_record::frame::{Frame, FrameHeader, MAGIC};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// A value that must not be found anywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Secret {
    /// Which kind, for the report.
    pub(crate) kind: &'static str,
    /// The line it was printed in, for the report.
    pub(crate) origin: String,
    /// The value.
    pub(crate) value: String,
}

/// What was searched and what was found.
#[derive(Default, Debug)]
pub(crate) struct Search {
    /// Files read.
    pub(crate) files: u64,
    /// Bytes looked through, as they lay there and decoded.
    pub(crate) bytes: u64,
    /// Frames that were found and decoded.
    pub(crate) frames: u64,
    /// Rows that were decoded from frames and Parquet.
    pub(crate) rows: u64,
    /// Parquet files that were decoded.
    pub(crate) parquet_files: u64,
    /// What was found: where, and which secret.
    pub(crate) hits: Vec<(String, Secret)>,
}

/// The secrets, ready to be searched for.
pub(crate) struct Leaks {
    secrets: Vec<Secret>,
    finder: AhoCorasick,
}

impl Leaks {
    pub(crate) fn new(secrets: Vec<Secret>) -> Self {
        assert!(!secrets.is_empty(), "a search for nothing finds nothing");
        let finder = AhoCorasick::new(secrets.iter().map(|secret| &secret.value)).unwrap();
        Leaks { secrets, finder }
    }

    /// How many secrets are searched for.
    pub(crate) fn secrets(&self) -> usize {
        self.secrets.len()
    }

    /// Searches every file below these folders.
    pub(crate) fn search(&self, folders: &[&Path]) -> Search {
        let mut search = Search::default();
        for folder in folders {
            let mut files = Vec::new();
            files_below(folder, &mut files);
            for file in files {
                self.search_file(&file, &mut search);
            }
        }
        search
    }

    /// Searches bytes and the frames within them.
    pub(crate) fn search_bytes(&self, place: &str, bytes: &[u8], search: &mut Search) {
        self.find(place, bytes, search);
        for frame in frames_in(bytes) {
            let Ok(batch) = frame.decode() else { continue };
            search.frames += 1;
            self.search_records(&format!("{place} (a frame)"), batch.get().records(), search);
        }
    }

    fn search_file(&self, path: &Path, search: &mut Search) {
        // A file can vanish between the listing and here; what is gone cannot leak.
        let Ok(bytes) = fs::read(path) else { return };
        search.files += 1;
        let place = path.display().to_string();
        self.search_bytes(&place, &bytes, search);
        if bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1") {
            let reader =
                ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
            for batch in reader {
                self.search_records(&format!("{place} (its columns)"), &batch.unwrap(), search);
            }
            search.parquet_files += 1;
        }
    }

    fn search_records(&self, place: &str, records: &RecordBatch, search: &mut Search) {
        search.rows += records.num_rows() as u64;
        for column in records.columns() {
            self.search_array(place, column, search);
        }
    }

    /// Every buffer of an array and of its children: text is in there as it is.
    fn search_array(&self, place: &str, array: &ArrayRef, search: &mut Search) {
        let mut left = vec![array.to_data()];
        while let Some(data) = left.pop() {
            for buffer in data.buffers() {
                self.find(place, buffer.as_slice(), search);
            }
            left.extend(data.child_data().iter().cloned());
        }
    }

    fn find(&self, place: &str, bytes: &[u8], search: &mut Search) {
        search.bytes += bytes.len() as u64;
        for found in self.finder.find_overlapping_iter(bytes) {
            search.hits.push((place.to_owned(), self.secrets[found.pattern().as_usize()].clone()));
        }
    }
}

impl Search {
    /// # Panics
    /// When anything was found, naming the places and kinds.
    pub(crate) fn assert_clean(&self) {
        let mut places: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for (place, secret) in &self.hits {
            *places.entry((place.as_str(), secret.kind)).or_default() += 1;
        }
        let examples: Vec<_> = self.hits.iter().take(5).map(|(_, secret)| &secret.origin).collect();
        assert!(self.hits.is_empty(), "planted secrets were found: {places:#?}, for example of {examples:?}");
    }
}

/// Every intact frame in these bytes, wherever it starts: a request body, a journal entry, a golden file.
pub(crate) fn frames_in(bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    for start in memchr::memmem::find_iter(bytes, &MAGIC) {
        let Some(length) = frame_bytes(&bytes[start..]) else { continue };
        let Some(frame) = bytes.get(start..start + length) else { continue };
        if let Ok(frame) = Frame::parse(bytes::Bytes::copy_from_slice(frame)) {
            frames.push(frame);
        }
    }
    frames
}

/// How long the frame is that starts here: its header tells at fixed places.
fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    let number =
        |at: usize| bytes.get(at..at + 4).map(|four| u32::from_le_bytes(four.try_into().unwrap()) as usize);
    number(12)?.checked_add(number(16)?)
}

/// The headers of all frames in these bytes.
pub(crate) fn headers_in(bytes: &[u8]) -> Vec<FrameHeader> {
    frames_in(bytes).into_iter().map(|frame| frame.header().clone()).collect()
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}
