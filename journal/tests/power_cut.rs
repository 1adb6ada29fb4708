//! Real power cuts: a real kernel and a real ext4, which is shut down under a journal at work.
//!
//! Needs root, loop devices, `mkfs.ext4`, `mount` and `python3` (which issues the ioctl, because
//! our own code has no `unsafe`). Where one is missing the test prints `SKIPPED power_cut` and why,
//! and fails if `BEEACON_TEST_REQUIRE_ALL=1`. `BEEACON_TEST_POWER_CUTS` sets how many; 100 otherwise.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test, of which clippy only exempts the functions marked as one"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Instant;

use beeacon_journal::{Duty, Journal, JournalError, JournalOptions, Lsn, RecoveryReport, verify};

/// Threads that append at the same time.
const WRITERS: u64 = 6;

/// FS_IOC_SHUTDOWN is `_IOR('X', 125, __u32)`; flag 2 is NOLOGFLUSH: what the file system's own log
/// has not written yet is gone too, as in a power cut.
const CUTTER: &str = r#"
import fcntl, os, struct, sys
for line in sys.stdin:
    mount = os.open(line.strip(), os.O_RDONLY)
    try:
        fcntl.ioctl(mount, 0x8004587D, struct.pack("I", 2))
        answer = "cut"
    except OSError as error:
        answer = "failed: " + str(error)
    os.close(mount)
    print(answer, flush=True)
"#;

/// A process that cuts the power of the file system it is told.
struct Cutter {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Cutter {
    fn start() -> Result<Self, String> {
        let mut process = Command::new("python3")
            .args(["-c", CUTTER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("start python3: {error}"))?;
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Ok(Self { process, input, output })
    }

    fn cut(&mut self, mount: &Path) -> Result<(), String> {
        writeln!(self.input, "{}", mount.display()).map_err(|error| error.to_string())?;
        let mut answer = String::new();
        self.output.read_line(&mut answer).map_err(|error| error.to_string())?;
        if answer.trim() == "cut" { Ok(()) } else { Err(format!("shut down the file system: {answer}")) }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("run {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// A small ext4 on a loop device; gone when dropped, also on panic.
struct Rig {
    directory: tempfile::TempDir,
    is_mounted: bool,
}

impl Rig {
    fn new() -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut rig = Self { directory, is_mounted: false };
        let image = rig.image();
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(64 << 20))
            .map_err(|error| format!("make an image: {error}"))?;
        run("mkfs.ext4", &["-q", "-F", &image.display().to_string()])?;
        std::fs::create_dir(rig.mount_point()).map_err(|error| error.to_string())?;
        rig.mount()?;
        Ok(rig)
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("disk.img")
    }

    fn mount_point(&self) -> PathBuf {
        self.directory.path().join("mount")
    }

    fn mount(&mut self) -> Result<(), String> {
        let (image, mount) = (self.image(), self.mount_point());
        run("mount", &["-o", "loop", &image.display().to_string(), &mount.display().to_string()])?;
        self.is_mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        run("umount", &[&self.mount_point().display().to_string()])?;
        self.is_mounted = false;
        Ok(())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.is_mounted {
            // Lazily: after a panic somebody may still have a file open.
            drop(run("umount", &["-l", &self.mount_point().display().to_string()]));
        }
    }
}

/// What a seed repeats (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// A payload that is a function of its id and length.
fn payload(id: u64, bytes: u64) -> Vec<u8> {
    let mut chance = Chance(id);
    let mut payload = id.to_le_bytes().to_vec();
    payload.extend(bytes.to_le_bytes());
    payload.resize_with(16 + bytes as usize, || chance.below(256) as u8);
    payload
}

fn options() -> JournalOptions {
    JournalOptions {
        segment_bytes: 256 << 10,
        record_bytes_max: 64 << 10,
        queue_bytes_max: 8 << 20,
        journal_bytes_max: 32 << 20,
        free_bytes_min: 0,
        known_lsn: Lsn::ZERO,
    }
}

/// What has been promised while there was power.
#[derive(Default)]
struct Promises {
    acknowledged: BTreeMap<u64, u64>,
    /// Set before the cut is asked for. What is acknowledged from then on was on its way while the
    /// file system went down; no caller would have heard of it in a real power cut.
    is_going: bool,
    while_going: u64,
    /// Threads that have met an error and stopped.
    stopped: u64,
}

#[derive(Default)]
struct Ledger {
    promises: Mutex<Promises>,
    changed: Condvar,
    next_id: AtomicU64,
    /// Set once the cut is done: an append that begins after that must fail.
    is_cut: AtomicBool,
    after_cut: AtomicU64,
}

/// Appends until the power is out.
fn write(journal: &Journal, ledger: &Ledger, seed: u64) {
    let mut chance = Chance(seed);
    loop {
        let id = ledger.next_id.fetch_add(1, Ordering::Relaxed);
        let bytes = if chance.below(20) == 0 { chance.below(60_000) } else { chance.below(2000) };
        let was_cut = ledger.is_cut.load(Ordering::SeqCst);
        match journal.append(payload(id, bytes)) {
            Ok(lsn) => {
                ledger.after_cut.fetch_add(u64::from(was_cut), Ordering::Relaxed);
                let mut promises = ledger.promises.lock().unwrap();
                if promises.is_going {
                    promises.while_going += 1;
                } else {
                    promises.acknowledged.insert(lsn.0, id);
                    ledger.changed.notify_all();
                }
            }
            Err(error) => {
                // The cut makes syncs and writes fail: the journal must not go on.
                ledger.promises.lock().unwrap().stopped += 1;
                ledger.changed.notify_all();
                assert_eq!(error.duty(), Duty::Stop, "{error}");
                return;
            }
        }
    }
}

/// Lets threads append, cuts the power after some number of acknowledgements, and closes.
fn work_until_cut(rig: &Rig, cutter: &mut Cutter, ledger: &Ledger, chance: &mut Chance) -> RecoveryReport {
    let directory = rig.mount_point().join("data").join("journal");
    let (journal, report) = Journal::open(&directory, options()).unwrap();
    check(&journal, ledger);
    let cursor = journal.cursor("store").unwrap();
    let target = {
        let mut promises = ledger.promises.lock().unwrap();
        promises.is_going = false;
        promises.stopped = 0;
        promises.acknowledged.len() as u64 + chance.below(60)
    };
    ledger.is_cut.store(false, Ordering::SeqCst);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            let (journal, seed) = (journal.clone(), chance.below(u64::MAX));
            scope.spawn(move || write(&journal, ledger, seed));
        }
        // A consumer that keeps up, so that cursors and removed segments meet power cuts as well.
        let synced = journal.synced_lsn();
        if chance.below(2) == 0 {
            cursor.advance(Lsn(synced.0.saturating_sub(chance.below(50))).max(cursor.get())).unwrap();
            journal.truncate().unwrap();
        }
        let mut promises = ledger
            .changed
            .wait_while(ledger.promises.lock().unwrap(), |found| {
                (found.acknowledged.len() as u64) < target && found.stopped == 0
            })
            .unwrap();
        assert_eq!(promises.stopped, 0, "a writer stopped while there was power");
        promises.is_going = true;
        drop(promises);
        cutter.cut(&rig.mount_point()).unwrap();
        ledger.is_cut.store(true, Ordering::SeqCst);
    });
    // Every writer has stopped by itself: the failed syncs poisoned the journal.
    let error = journal.append(vec![0; 10]).unwrap_err();
    assert!(matches!(error, JournalError::Poisoned(_)), "{error}");
    assert_eq!(error.duty(), Duty::Stop);
    assert!(cursor.advance(journal.synced_lsn()).is_err());
    drop(cursor);
    assert!(journal.close().is_err());
    report
}

/// Every record that was acknowledged and not removed is there and intact, in the right place.
fn check(journal: &Journal, ledger: &Ledger) {
    let acknowledged = &ledger.promises.lock().unwrap().acknowledged;
    let slowest = journal.cursors().iter().map(|(_, lsn)| lsn.0).min().unwrap_or(0);
    let mut reader = journal.reader(Lsn(slowest + 1));
    let mut found = BTreeMap::new();
    while let Some(record) = reader.read().unwrap() {
        let word = |at: usize| u64::from_le_bytes(record.payload[at..at + 8].try_into().unwrap());
        let (id, bytes) = (word(0), word(8));
        assert!(record.payload == payload(id, bytes), "record {} is not what was appended", record.lsn);
        found.insert(record.lsn.0, id);
    }
    for (lsn, id) in acknowledged.range(slowest + 1..) {
        assert_eq!(found.get(lsn), Some(id), "acknowledged record {lsn} is lost");
    }
    assert!(found.keys().zip(slowest + 1..).all(|(lsn, expected)| *lsn == expected), "lsns have holes");
}

fn skip(reason: &str) {
    println!("SKIPPED power_cut {reason}");
    assert!(
        std::env::var("BEEACON_TEST_REQUIRE_ALL").as_deref() != Ok("1"),
        "power_cut was skipped and BEEACON_TEST_REQUIRE_ALL=1: {reason}"
    );
}

/// Scenario: six threads append records of all sizes to a journal on a real ext4; at a random moment
/// the file system loses its power; it is mounted again, and the journal opened; and so on.
/// Guarantees: no acknowledged record is ever lost; after the cut the journal stops and acknowledges
/// nothing; a torn tail is never taken for damage.
#[test]
fn no_acknowledged_record_is_lost_in_real_power_cuts() {
    let (mut rig, mut cutter) = match Rig::new().and_then(|rig| Ok((rig, Cutter::start()?))) {
        Ok(ready) => ready,
        Err(reason) => return skip(&reason),
    };
    let cuts: u64 = std::env::var("BEEACON_TEST_POWER_CUTS").map_or(100, |text| text.parse().unwrap());
    let seed = std::env::var("SEED").map_or(1, |text| text.parse().unwrap());
    println!("SEED={seed} BEEACON_TEST_POWER_CUTS={cuts}");
    let started = Instant::now();
    let mut chance = Chance(seed);
    let ledger = Ledger::default();
    let (mut torn, mut records) = (0, 0);
    for cut in 0..cuts {
        let report = work_until_cut(&rig, &mut cutter, &ledger, &mut chance);
        assert!(report.is_clean(), "before cut {cut}: {report:?}");
        torn += u64::from(report.torn_bytes > 0);
        records += report.records;
        rig.unmount().unwrap();
        rig.mount().unwrap();
    }
    let directory = rig.mount_point().join("data").join("journal");
    let report = verify(&directory).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let (journal, _) = Journal::open(&directory, options()).unwrap();
    check(&journal, &ledger);
    journal.close().unwrap();
    rig.unmount().unwrap();

    let promises = ledger.promises.lock().unwrap();
    let (acknowledged, while_going) = (promises.acknowledged.len(), promises.while_going);
    println!(
        "power_cut: {cuts} cuts, {acknowledged} records acknowledged, 0 lost, {torn} torn tails, \
         {records} records recovered, {while_going} more acknowledged while the power went, {:.1} s",
        started.elapsed().as_secs_f64()
    );
    assert_eq!(ledger.after_cut.load(Ordering::Relaxed), 0, "nothing is acknowledged after the cut");
    assert!(acknowledged as u64 >= cuts, "the rig tested something");
    assert!(records > 0);
}
