//! How an SQLite file is opened. Three rooms keep one each: the store its catalog, alerts their ledger, events their log.
//!
//! What always holds:
//! - a commit that was reported survives a power cut: WAL and `synchronous = FULL`;
//! - one connection writes, so that no transaction of ours waits for another of ours; readers never wait for it;
//! - a file that a newer program made is refused before anything in it is changed.
//!
//! What is in a file is its room's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use thiserror::Error;

/// Why a file was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A newer program made it. Nothing was changed.
    #[error("{} was made by a newer version: it has version {found}, this program knows {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that is known.
        known: i64,
    },
    /// Its tables cannot be made or brought up to date.
    #[error("migrate {}", path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: MigrateError,
    },
    /// SQLite does not do it.
    #[error("{action} {}", path.display())]
    Sqlite {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: sqlx::Error,
    },
}

/// Opens a file for its one writer, making it, or bringing its tables up to date. Another process is waited for so long.
///
/// # Errors
/// [`OpenError::Newer`], and what SQLite reports.
pub async fn writer(
    path: &Path,
    migrations: &Migrator,
    busy_wait: Duration,
) -> Result<SqlitePool, OpenError> {
    refuse_newer(path, migrations).await?;
    let pool = SqlitePoolOptions::new().max_connections(1).test_before_acquire(false);
    let options = options(path, busy_wait).create_if_missing(true);
    let pool = pool.connect_with(options).await.map_err(failed("open", path))?;
    let migrated = migrations.run(&pool).await;
    migrated.map_err(|source| OpenError::Migrate { path: path.to_owned(), source })?;
    Ok(pool)
}

/// Opens so many further connections, which only read, to a file that has its writer.
///
/// # Errors
/// What SQLite reports.
pub async fn readers(path: &Path, busy_wait: Duration, count: u32) -> Result<SqlitePool, OpenError> {
    let pool = SqlitePoolOptions::new().max_connections(count).test_before_acquire(false);
    pool.connect_with(options(path, busy_wait).read_only(true))
        .await
        .map_err(failed("open for reading", path))
}

fn options(path: &Path, busy_wait: Duration) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(busy_wait)
        .disable_statement_logging()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(sqlx::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Sqlite { action, path, source }
}

/// Looks at the version through a read-only connection, before anything could change the file.
async fn refuse_newer(path: &Path, migrations: &Migrator) -> Result<(), OpenError> {
    if !path.exists() {
        return Ok(());
    }
    let known = migrations.iter().map(|migration| migration.version).max().unwrap_or(0);
    let found = version(path).await.map_err(failed("read the version of", path))?;
    match found {
        Some(found) if found > known => Err(OpenError::Newer { path: path.to_owned(), found, known }),
        _ => Ok(()),
    }
}

async fn version(path: &Path) -> sqlx::Result<Option<i64>> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let made = sqlx::query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'")
        .fetch_optional(&mut connection)
        .await?;
    let mut found = None;
    if made.is_some() {
        let newest = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations");
        found = newest.fetch_one(&mut connection).await?;
    }
    connection.close().await?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    static NOTHING: Migrator = Migrator::DEFAULT;
    const WAIT: Duration = Duration::from_secs(5);

    async fn number(pool: &SqlitePool, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
    }

    /// What a commit relies on: without these two a power cut could take back what was reported.
    #[tokio::test]
    async fn the_writer_syncs_every_commit() {
        let folder = tempfile::tempdir().unwrap();
        let writer = writer(&folder.path().join("a.sqlite"), &NOTHING, WAIT).await.unwrap();
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&writer).await.unwrap();
        assert_eq!((mode.as_str(), number(&writer, "PRAGMA synchronous").await), ("wal", 2));
    }

    #[tokio::test]
    async fn readers_see_what_was_committed_and_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sqlite");
        let writer = writer(&path, &NOTHING, WAIT).await.unwrap();
        sqlx::query("CREATE TABLE a (n INTEGER)").execute(&writer).await.unwrap();
        let readers = readers(&path, WAIT, 2).await.unwrap();
        sqlx::query("INSERT INTO a VALUES (7)").execute(&writer).await.unwrap();
        assert_eq!(number(&readers, "SELECT n FROM a").await, 7);
        assert!(sqlx::query("DELETE FROM a").execute(&readers).await.is_err());
    }

    #[tokio::test]
    async fn a_file_of_a_newer_program_is_refused_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sqlite");
        let made = writer(&path, &NOTHING, WAIT).await.unwrap();
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (999, 'later', true, x'00', 1)",
        )
        .execute(&made)
        .await
        .unwrap();
        made.close().await;
        let before = std::fs::read(&path).unwrap();
        let refused = writer(&path, &NOTHING, WAIT).await;
        assert!(matches!(refused, Err(OpenError::Newer { found: 999, known: 0, .. })), "{refused:?}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
