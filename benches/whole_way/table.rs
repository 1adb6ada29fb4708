//! The figures of one run.

use std::path::Path;

/// The figures, as people and as programs read them.
#[derive(Default)]
pub(crate) struct Table {
    figures: Vec<(String, f64, &'static str)>,
}

impl Table {
    pub(crate) fn note(&self, text: &str) {
        print_line(text);
    }

    pub(crate) fn figure(&mut self, name: &str, value: f64, unit: &'static str) {
        print_line(&format!("{name:<52} {value:>10.2} {unit}"));
        self.figures.push((name.trim().to_owned(), value, unit));
    }

    pub(crate) fn rate(&mut self, name: &str, bytes: usize, seconds: f64) {
        self.figure(name, bytes as f64 / 1e6 / seconds, "MB/s");
    }

    pub(crate) fn ratio(&mut self, name: &str, value: f64) {
        self.figure(name, value, "x");
    }

    pub(crate) fn finish(self) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        let figures: Vec<serde_json::Value> = self
            .figures
            .iter()
            .map(|(name, value, unit)| serde_json::json!({ "name": name, "value": value, "unit": unit }))
            .collect();
        std::fs::create_dir_all(&directory).expect("a directory for the figures");
        let path = directory.join("whole_way.json");
        std::fs::write(&path, serde_json::json!({ "figures": figures }).to_string()).expect("the figures");
        print_line(&format!("also in {}", path.display()));
    }
}

#[expect(clippy::print_stdout, reason = "a bench prints")]
fn print_line(text: &str) {
    println!("{text}");
}
