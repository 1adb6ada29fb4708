//! Who reads the journal, how far each has come, and what may go.
//!
//! Always holds: a segment goes only when every consumer is beyond it; the store's place moves only to what is in files
//! and the catalog; the claims of Loki and of followers end where they would keep the doors shut.

use std::sync::Arc;

use beeacon_journal::{Cursor, JournalError, Lsn};

use crate::collector::{Inner, blocking};
use crate::error::{CollectorError, chain};
use crate::followers;
use crate::limits::{HOUSEKEEPING_INTERVAL, PRESSURE_HIGH_PERCENT, PRESSURE_LOW_PERCENT};

/// The store's place in the journal.
pub(crate) const STORE_CURSOR: &str = "store";

/// The Loki leg's place in the journal.
pub(crate) const LOKI_CURSOR: &str = "loki";

/// Follows the store's flushes, and looks at the journal's room, until something fails.
pub(crate) async fn keep_house(inner: &Arc<Inner>) -> CollectorError {
    let mut flushed = inner.store.watch_flushed();
    let mut tick = tokio::time::interval(HOUSEKEEPING_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = flushed.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            () = inner.cramped.notified() => {}
            _ = tick.tick() => {}
        }
        if let Err(error) = look_after(inner).await {
            return error;
        }
    }
}

async fn look_after(inner: &Arc<Inner>) -> Result<(), CollectorError> {
    advance_store(inner).await?;
    if bytes_to_free(inner) == 0 {
        relieve(inner, 0);
        return Ok(());
    }
    if inner.store.flushed_lsn() < inner.journal.synced_lsn().0 {
        match inner.store.flush().await {
            Ok(_) => advance_store(inner).await?,
            Err(error) => {
                let text = chain(&error);
                tracing::warn!(error = text, "the journal is short of room and the store can't write");
                inner.note_trouble(text);
            }
        }
    }
    relieve(inner, bytes_to_free(inner));
    if bytes_to_free(inner) > 0 {
        followers::press(inner).await?;
    }
    Ok(())
}

/// How many bytes the journal should get rid of: none while it is below the mark and has room.
fn bytes_to_free(inner: &Inner) -> u64 {
    let allocated = inner.journal.statistics().allocated_bytes;
    let share = |percent: u64| inner.journal_bytes_max / 100 * percent;
    let is_full = matches!(inner.journal.health(), Err(JournalError::Full(_)));
    if !is_full && allocated < share(PRESSURE_HIGH_PERCENT) {
        return 0;
    }
    allocated.saturating_sub(share(PRESSURE_LOW_PERCENT)).max(1)
}

/// Tells the Loki leg how much it has to let go of, if it is the one that holds the journal.
fn relieve(inner: &Inner, bytes: u64) {
    let Some(loki) = &inner.loki else { return };
    let holds = loki.place() < inner.store_cursor.get().0;
    loki.press(if holds { bytes } else { 0 });
}

/// Moves the store's place to what it has in files, and removes what nobody needs.
pub(crate) async fn advance_store(inner: &Inner) -> Result<(), CollectorError> {
    let flushed = Lsn(inner.store.flushed_lsn());
    if inner.store_cursor.get() >= flushed {
        return Ok(());
    }
    advance(inner, &inner.store_cursor, flushed).await
}

/// Moves a consumer's place and removes what nobody needs. A cursor that can't be written any more stays where it is, and
/// holds the journal: that is told, and does not stop the doors until there is no room.
pub(crate) async fn advance(inner: &Inner, cursor: &Cursor, to: Lsn) -> Result<(), CollectorError> {
    let (journal, moving) = (inner.journal.clone(), cursor.clone());
    let moved = blocking("move a place in the journal", move || {
        moving.advance(to)?;
        journal.truncate()
    });
    match moved.await? {
        Ok(_) => Ok(()),
        Err(JournalError::Closed) => Ok(()),
        Err(error @ JournalError::Poisoned(_)) if inner.journal.health().is_err() => Err(error.into()),
        Err(error) => {
            let text = chain(&error);
            tracing::error!(cursor = cursor.name(), error = text, "a place in the journal can't be moved");
            inner.note_trouble(text);
            Ok(())
        }
    }
}
