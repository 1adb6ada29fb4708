//! `beeacon demo`: made-up containers whose lines hold made-up personal data and secrets, written as Docker writes them.
//!
//! The agent reads them like any container's, so what the demo shows is the real path. Nothing here is anybody's data: the
//! card numbers are the networks' test numbers, the rest is drawn from short lists.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// A made-up container's log is rotated at this size, in bytes, as with `max-size=10m`.
const LOG_BYTES_MAX: u64 = 10 << 20;

/// Lines that are there before the program starts: what Docker kept.
const PAST_LINES: u64 = 2_000;

/// A made-up service.
struct Service {
    name: &'static str,
    image: &'static str,
    line: fn(&mut Dice) -> (bool, String),
}

const SERVICES: [Service; 4] = [
    Service { name: "web", image: "shop/web:1.27", line: web },
    Service { name: "api", image: "shop/api:3.2", line: api },
    Service { name: "payments", image: "shop/payments:0.9", line: payments },
    Service { name: "auth", image: "shop/auth:2.0", line: auth },
];

const NAMES: [&str; 6] = ["ada.byron", "grace", "linus.p", "margaret", "alan-m", "katherine"];
const DOMAINS: [&str; 3] = ["example.com", "mail.example.org", "example.net"];
const CARDS: [&str; 3] = ["4111 1111 1111 1111", "5555555555554444", "378282246310005"];
const PATHS: [&str; 5] = ["/", "/cart", "/products/42", "/checkout", "/api/v1/orders"];

/// A small generator of numbers; its quality is good enough for a demo.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed | 1)
    }

    /// xorshift64*, Vigna 2016.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let index = usize::try_from(self.below(from.len() as u64)).unwrap_or(0);
        from.get(index).copied().unwrap_or_default()
    }

    fn address(&mut self) -> String {
        format!("203.0.113.{}", self.below(255))
    }

    fn mail(&mut self) -> String {
        format!("{}@{}", self.pick(&NAMES), self.pick(&DOMAINS))
    }

    fn hexadecimal(&mut self) -> String {
        format!("{:016x}", self.next())
    }
}

/// Whether the line goes to standard error, and its text.
fn web(dice: &mut Dice) -> (bool, String) {
    let status = dice.pick(&["200", "200", "200", "304", "404", "500"]);
    let line = format!(
        "{} - - \"GET {} HTTP/1.1\" {status} {} \"-\" \"Mozilla/5.0\" rt=0.{:03}",
        dice.address(),
        dice.pick(&PATHS),
        dice.below(20_000),
        dice.below(1000),
    );
    (status == "500", line)
}

fn api(dice: &mut Dice) -> (bool, String) {
    let trace = dice.hexadecimal();
    let line = match dice.below(4) {
        0 => format!(
            r#"{{"level":"info","msg":"order placed","user":"{}","trace_id":"{trace}","total":{}}}"#,
            dice.mail(),
            dice.below(500)
        ),
        1 => format!(
            r#"{{"level":"warn","msg":"slow query","trace_id":"{trace}","ms":{}}}"#,
            200 + dice.below(900)
        ),
        2 => format!(
            r#"{{"level":"debug","msg":"upstream","authorization":"Bearer {trace}{}"}}"#,
            dice.hexadecimal()
        ),
        _ => format!(
            r#"{{"level":"info","msg":"cart updated","trace_id":"{trace}","items":{}}}"#,
            dice.below(9)
        ),
    };
    (false, line)
}

fn payments(dice: &mut Dice) -> (bool, String) {
    match dice.below(5) {
        0 => (false, format!("level=info msg=\"card accepted\" card=\"{}\"", dice.pick(&CARDS))),
        1 => (true, format!("level=error msg=\"gateway refused\" order={} attempt=2", dice.below(100_000))),
        _ => (
            false,
            format!("level=info msg=settled order={} amount={}", dice.below(100_000), dice.below(900)),
        ),
    }
}

fn auth(dice: &mut Dice) -> (bool, String) {
    match dice.below(6) {
        0 => (true, format!("WARN  login failed for {} from {}", dice.mail(), dice.address())),
        1 => (false, format!("DEBUG reset link sent, password=Spring{}!x", dice.below(10_000))),
        2 => (true, "ERROR session store unreachable, retrying".to_owned()),
        _ => (false, format!("INFO  session {} opened", dice.hexadecimal())),
    }
}

/// The made-up containers on disk.
pub(crate) struct Containers {
    logs: Vec<Log>,
    dice: Dice,
}

struct Log {
    service: &'static Service,
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Containers {
    /// Writes the containers' files below `directory`, with some past lines in each.
    pub(crate) fn create(directory: &Path, seed: u64, now: Timestamp) -> io::Result<Self> {
        let logs =
            SERVICES.iter().map(|service| Log::create(directory, service)).collect::<io::Result<_>>()?;
        let mut containers = Containers { logs, dice: Dice::new(seed) };
        for age in (1..=PAST_LINES).rev() {
            let age = jiff::SignedDuration::from_millis(i64::try_from(age).unwrap_or(0) * 500);
            containers.write_line(now.checked_sub(age).unwrap_or(now))?;
        }
        Ok(containers)
    }

    /// Writes one more line of one of the containers.
    pub(crate) fn write_line(&mut self, now: Timestamp) -> io::Result<()> {
        let index = usize::try_from(self.dice.below(SERVICES.len() as u64)).unwrap_or(0);
        let Some(log) = self.logs.get_mut(index) else { return Ok(()) };
        let (to_stderr, line) = (log.service.line)(&mut self.dice);
        log.write(now, to_stderr, &line)
    }
}

impl Log {
    fn create(directory: &Path, service: &'static Service) -> io::Result<Self> {
        let id = container_id(service.name);
        let directory = directory.join(&id);
        fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{id}-json.log"));
        let configuration = serde_json::json!({
            "ID": id,
            "Name": format!("/demo-{}-1", service.name),
            "Created": Timestamp::UNIX_EPOCH.to_string(),
            "State": { "Running": true, "StartedAt": Timestamp::UNIX_EPOCH.to_string() },
            "Config": {
                "Image": service.image,
                "Tty": false,
                "Labels": {
                    "com.docker.compose.project": "demo",
                    "com.docker.compose.service": service.name,
                },
            },
            "LogPath": path,
        });
        fs::write(directory.join("config.v2.json"), configuration.to_string())?;
        let host = serde_json::json!({ "LogConfig": { "Type": "json-file", "Config": {} } });
        fs::write(directory.join("hostconfig.json"), host.to_string())?;
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Log { service, path, file, bytes })
    }

    fn write(&mut self, now: Timestamp, to_stderr: bool, line: &str) -> io::Result<()> {
        if self.bytes >= LOG_BYTES_MAX {
            let mut rotated = self.path.clone().into_os_string();
            rotated.push(".1");
            fs::rename(&self.path, rotated)?;
            self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            self.bytes = 0;
        }
        let stream = if to_stderr { "stderr" } else { "stdout" };
        let text = serde_json::Value::String(format!("{line}\n"));
        let record = format!("{{\"log\":{text},\"stream\":\"{stream}\",\"time\":\"{now:.9}\"}}\n");
        self.bytes += record.len() as u64;
        self.file.write_all(record.as_bytes())
    }
}

/// A container's id is 64 hexadecimal characters; the demo's are the same on every run.
fn container_id(name: &str) -> String {
    let mut dice = Dice::new(name.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte)));
    (0..4).map(|_| dice.hexadecimal()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_writes_records_as_docker_does() {
        let directory = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-01-02T03:04:05.5Z".parse().unwrap();
        let mut containers = Containers::create(directory.path(), 3, now).unwrap();
        containers.write_line(now).unwrap();
        let mut records = 0;
        for container in fs::read_dir(directory.path()).unwrap() {
            let container = container.unwrap();
            let id = container.file_name().into_string().unwrap();
            assert_eq!(id.len(), 64);
            for line in fs::read_to_string(container.path().join(format!("{id}-json.log"))).unwrap().lines() {
                let record: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(record["log"].as_str().unwrap().ends_with('\n'));
                record["time"].as_str().unwrap().parse::<Timestamp>().unwrap();
                records += 1;
            }
        }
        assert_eq!(records, PAST_LINES + 1);
    }
}
