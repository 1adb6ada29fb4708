//! `beeacon journal verify|dump`: a look into a journal that no process has open. Nothing is changed.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use beeacon_collector::entry::{self, EntryKind};
use beeacon_journal::{Entry, EntryState};
use beeacon_query::display;
use beeacon_record::Frame;
use bytes::Bytes;

use crate::command_line::{JournalAction, JournalArguments};
use crate::exit::Exit;

pub(crate) fn run(arguments: JournalArguments) -> anyhow::Result<Exit> {
    match arguments.action {
        JournalAction::Verify { directory } => verify(&directory),
        JournalAction::Dump { directory, messages } => dump(&directory, messages),
    }
}

fn verify(directory: &Path) -> anyhow::Result<Exit> {
    let report = beeacon_journal::verify(directory)
        .with_context(|| format!("verify the journal in {}", directory.display()))?;
    let mut out = io::stdout().lock();
    let lsn = |lsn: Option<beeacon_journal::Lsn>| lsn.map_or("none".to_owned(), |lsn| lsn.to_string());
    writeln!(out, "segments        {}", report.segments)?;
    writeln!(out, "records         {}", report.records)?;
    writeln!(out, "lsns            {} to {}", lsn(report.first_lsn), lsn(report.last_lsn))?;
    writeln!(out, "payload bytes   {}", report.payload_bytes)?;
    writeln!(out, "allocated bytes {}", report.allocated_bytes)?;
    writeln!(out, "torn bytes      {}", report.torn_bytes)?;
    writeln!(out, "lost records    {}", report.lost_records)?;
    for (name, position) in &report.cursors {
        let position = position.map_or("damaged".to_owned(), |lsn| lsn.to_string());
        writeln!(out, "cursor          {name} at {position}")?;
    }
    for range in &report.damage {
        let lost = match range.lost {
            Some((first, last)) => format!("records {first} to {last} are lost"),
            None => "no record is lost".to_owned(),
        };
        writeln!(
            out,
            "damage          {} at byte {}, {} bytes: {lost}",
            range.segment, range.offset, range.bytes
        )?;
    }
    let clean = report.is_clean();
    writeln!(out, "{}", if clean { "clean" } else { "DAMAGED" })?;
    Ok(if clean { Exit::Done } else { Exit::Failed })
}

fn dump(directory: &Path, messages: bool) -> anyhow::Result<Exit> {
    let entries = beeacon_journal::dump(directory)
        .with_context(|| format!("read the journal in {}", directory.display()))?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for found in entries {
        print_entry(&found?, messages, &mut out)?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn print_entry(found: &Entry, messages: bool, out: &mut impl Write) -> io::Result<()> {
    let lsn = found.lsn.map_or("-".to_owned(), |lsn| lsn.to_string());
    write!(out, "{lsn} {} at {} {} bytes ", found.segment, found.offset, found.bytes)?;
    if found.state != EntryState::Valid {
        return writeln!(out, "{:?}", found.state);
    }
    if found.payload.is_empty() {
        return writeln!(out, "without payload");
    }
    let entry = match entry::read(&Bytes::from(found.payload.clone())) {
        Ok(entry) => entry,
        Err(error) => return writeln!(out, "{error}"),
    };
    match entry.kind {
        EntryKind::Session { agent, epoch } => writeln!(out, "session of agent {agent}, epoch {}", epoch.0),
        EntryKind::Batch { frame, .. } => match Frame::parse(frame) {
            Ok(frame) => print_frame(&frame, messages, out),
            Err(error) => writeln!(out, "{error}"),
        },
    }
}

fn print_frame(frame: &Frame, messages: bool, out: &mut impl Write) -> io::Result<()> {
    let header = frame.header();
    writeln!(
        out,
        "{} rows of agent {}, epoch {}, rules {:016x}",
        header.row_count, header.agent, header.epoch.0, header.rule_set.0
    )?;
    for interval in &header.intervals {
        write!(out, "  {} from {} to {}", interval.source, interval.from, interval.to)?;
        if let Some(gap) = &interval.gap {
            write!(out, ", gap from {}: {}", gap.from, gap.reason.as_str())?;
        }
        writeln!(out)?;
    }
    if messages {
        match frame.decode() {
            Err(error) => writeln!(out, "  {error}")?,
            Ok(batch) => {
                for message in batch.get().messages().iter().flatten() {
                    writeln!(out, "    {}", display::escaped(message))?;
                }
            }
        }
    }
    Ok(())
}
