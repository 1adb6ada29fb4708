//! Writes json-file logs as dockerd does: one write per record, rotation before the write that follows the limit, and rotated files
//! compressed where that is asked for.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use beeacon_record::Position;

pub(crate) struct Log {
    directory: PathBuf,
    path: PathBuf,
    pub(crate) id: String,
    file: File,
    size: u64,
    size_max: u64,
    file_max: usize,
    generation: u64,
    clock_ns: i64,
    /// Whether rotated files are compressed.
    pub(crate) compresses: bool,
}

impl Log {
    pub(crate) fn create(containers: &Path, id: &str, size_max: u64, file_max: usize) -> Self {
        let directory = containers.join(id);
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("{id}-json.log"));
        let file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let log = Log {
            directory,
            path,
            id: id.to_owned(),
            file,
            size: 0,
            size_max,
            file_max,
            generation: 1,
            clock_ns: 1_700_000_000_000_000_000,
            compresses: false,
        };
        log.describe(true, false);
        log
    }

    pub(crate) fn describe(&self, running: bool, tty: bool) {
        let id = &self.id;
        let text = format!(
            r#"{{"ID":"{id}","Name":"/name-{id}","Config":{{"Tty":{tty},"Image":"i:1","Labels":{{}}}},
               "State":{{"Running":{running},"StartedAt":"2024-01-01T00:00:00Z"}}}}"#
        );
        let temporary = self.directory.join("config.tmp");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, self.directory.join("config.v2.json")).unwrap();
    }

    /// A timestamp later than all before.
    pub(crate) fn now(&mut self) -> i64 {
        self.clock_ns += 1_000_003;
        self.clock_ns
    }

    /// Writes one whole line; gives where it stands.
    pub(crate) fn line(&mut self, stream: &str, text: &str) -> Position {
        let at = self.now();
        self.piece(stream, &format!("{text}\n"), at)
    }

    /// Writes one piece, with a newline or without.
    pub(crate) fn piece(&mut self, stream: &str, text: &str, timestamp_ns: i64) -> Position {
        let time = jiff::Timestamp::from_nanosecond(i128::from(timestamp_ns)).unwrap();
        let text = serde_json::to_string(text).unwrap();
        let record = format!("{{\"log\":{text},\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n");
        self.raw(record.as_bytes())
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Position {
        if self.size_max > 0 && self.size >= self.size_max {
            self.rotate();
        }
        let position = Position::new(self.generation, self.size);
        self.file.write_all(bytes).unwrap();
        self.size += bytes.len() as u64;
        position
    }

    pub(crate) fn rotate(&mut self) {
        let end = if self.compresses { ".gz" } else { "" };
        let place = |place: usize| self.place(place, end);
        if self.file_max < 2 {
            std::fs::remove_file(&self.path).unwrap();
        } else {
            std::fs::remove_file(place(self.file_max - 1)).ok();
            for number in (2..self.file_max).rev() {
                std::fs::rename(place(number - 1), place(number)).ok();
            }
            std::fs::rename(&self.path, self.place(1, "")).unwrap();
        }
        self.file = OpenOptions::new().create(true).write(true).truncate(true).open(&self.path).unwrap();
        self.size = 0;
        self.generation += 1;
        if self.compresses {
            self.compress(self.file_max >= 2);
        }
    }

    fn place(&self, place: usize, end: &str) -> PathBuf {
        PathBuf::from(format!("{}.{place}{end}", self.path.display()))
    }

    /// Compresses the file that was rotated last, and removes it then.
    pub(crate) fn compress(&self, removes: bool) {
        let (from, to) = (self.place(1, ""), self.place(1, ".gz"));
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(to).unwrap(), flate2::Compression::fast());
        std::io::copy(&mut File::open(&from).unwrap(), &mut encoder).unwrap();
        encoder.finish().unwrap();
        if removes {
            std::fs::remove_file(from).unwrap();
        }
    }

    /// Cuts the compressed file that was rotated so many times to a part of its length.
    pub(crate) fn cut(&self, place: usize, part: f64) {
        let file = OpenOptions::new().write(true).open(self.place(place, ".gz")).unwrap();
        let bytes = file.metadata().unwrap().len() as f64;
        file.set_len((bytes * part) as u64).unwrap();
    }

    /// As Docker 20.10 does with `max-file=1`, and as `truncate -s 0` from outside.
    pub(crate) fn truncate(&mut self) {
        self.file = OpenOptions::new().create(true).write(true).truncate(true).open(&self.path).unwrap();
        self.size = 0;
        self.generation += 1;
    }

    pub(crate) fn remove(self) {
        std::fs::remove_dir_all(self.directory).unwrap();
    }
}
