//! The catalog in one SQLite file inside the data directory: WAL, `synchronous = FULL`, so that a commit that was reported
//! survives a power cut. One connection writes, a few read; readers never wait for the writer.

use std::path::Path as FilePath;
use std::str::FromStr;

use async_trait::async_trait;
use beeacon_record::{AgentId, Epoch, GapReason, Position, Source};
use object_store::path::Path;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::{
    Catalog, Checksums, CommitOutcome, FileFacts, FilesAt, FlushCommit, KnownFile, RowGroupFacts, StagedFile,
    Totals,
};
use crate::commit::{GapRow, SourceProgress};
use crate::error::StoreError;
use crate::limits::{CATALOG_BUSY_WAIT, CATALOG_READERS, GAPS_READ_MAX, PRUNE_SERVICES_MAX};
use crate::snapshot::{LogFile, Prune};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The only shard of the journal there is, as long as one process has one journal.
const SHARD: i64 = 0;

/// See the module.
pub(crate) struct SqliteCatalog {
    writer: SqlitePool,
    readers: SqlitePool,
}

fn failed(action: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Catalog { action, source }
}

impl SqliteCatalog {
    /// Opens the catalog, making or migrating it.
    ///
    /// # Errors
    /// [`StoreError::Newer`] when a newer program made it (nothing is changed then), and what SQLite reports.
    pub(crate) async fn open(path: &FilePath) -> Result<Self, StoreError> {
        let writer = beeacon_sqlite::writer(path, &MIGRATIONS, CATALOG_BUSY_WAIT).await?;
        let readers = beeacon_sqlite::readers(path, CATALOG_BUSY_WAIT, CATALOG_READERS).await?;
        Ok(SqliteCatalog { writer, readers })
    }
}

/// Signed and unsigned numbers with the same bits: SQLite has only signed ones.
fn signed(number: u64) -> i64 {
    number.cast_signed()
}

fn unsigned(row: &SqliteRow, column: &'static str) -> Result<u64, StoreError> {
    Ok(number(row, column)?.cast_unsigned())
}

fn number(row: &SqliteRow, column: &'static str) -> Result<i64, StoreError> {
    row.try_get(column).map_err(failed("read a number"))
}

fn text(row: &SqliteRow, column: &'static str) -> Result<String, StoreError> {
    row.try_get(column).map_err(failed("read a text"))
}

fn uuid(row: &SqliteRow) -> Result<Uuid, StoreError> {
    Uuid::from_str(&text(row, "file_id")?).map_err(|_| StoreError::CatalogContent { what: "file id" })
}

fn path(row: &SqliteRow) -> Result<Path, StoreError> {
    Path::parse(text(row, "path")?).map_err(|_| StoreError::CatalogContent { what: "path" })
}

fn crc(row: &SqliteRow) -> Result<u32, StoreError> {
    u32::try_from(number(row, "crc32c")?).map_err(|_| StoreError::CatalogContent { what: "checksum" })
}

fn agent(row: &SqliteRow) -> Result<AgentId, StoreError> {
    text(row, "agent")?.parse().map_err(|_| StoreError::CatalogContent { what: "agent id" })
}

fn source(row: &SqliteRow) -> Result<Source, StoreError> {
    Source::new(text(row, "source")?).map_err(|_| StoreError::CatalogContent { what: "source name" })
}

fn log_file(row: &SqliteRow) -> Result<LogFile, StoreError> {
    Ok(LogFile {
        file_id: uuid(row)?,
        path: path(row)?,
        bytes: unsigned(row, "bytes")?,
        rows: unsigned(row, "rows")?,
        time_min_ns: number(row, "time_min_ns")?,
        time_max_ns: number(row, "time_max_ns")?,
        from_lsn: unsigned(row, "from_lsn")?,
        to_lsn: unsigned(row, "to_lsn")?,
        services_within: number(row, "services_within")? != 0,
    })
}

fn gap_row(row: &SqliteRow) -> Result<GapRow, StoreError> {
    let reason = u8::try_from(number(row, "reason")?).ok().and_then(GapReason::from_number);
    Ok(GapRow {
        tenant: text(row, "tenant")?,
        agent: agent(row)?,
        source: source(row)?,
        host: text(row, "host")?,
        service: text(row, "service")?,
        container: text(row, "container")?,
        container_id: text(row, "container_id")?,
        from: Position::new(unsigned(row, "from_major")?, unsigned(row, "from_minor")?),
        to: Position::new(unsigned(row, "to_major")?, unsigned(row, "to_minor")?),
        reason: reason.ok_or(StoreError::CatalogContent { what: "gap reason" })?,
        bytes: unsigned(row, "bytes")?,
        timestamp_before_ns: number(row, "timestamp_before_ns")?,
        timestamp_after_ns: number(row, "timestamp_after_ns")?,
        received_ns: number(row, "received_ns")?,
    })
}

/// Positions as 16 bytes each, little endian, major first.
fn positions_to_bytes(positions: &[Position]) -> Vec<u8> {
    positions.iter().flat_map(|p| p.major.to_le_bytes().into_iter().chain(p.minor.to_le_bytes())).collect()
}

fn positions_from_bytes(bytes: &[u8]) -> Result<Vec<Position>, StoreError> {
    let (pairs, rest) = bytes.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(StoreError::CatalogContent { what: "list of open positions" });
    }
    let halves = pairs.iter().map(|pair| u128::from_le_bytes(*pair));
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of a u128 are taken apart")]
    Ok(halves.map(|both| Position::new(both as u64, (both >> 64) as u64)).collect())
}

async fn read_upto(connection: &mut SqliteConnection) -> Result<u64, StoreError> {
    let upto = sqlx::query_scalar::<_, i64>("SELECT upto FROM journal_progress WHERE shard = ?")
        .bind(SHARD)
        .fetch_one(connection)
        .await;
    Ok(upto.map_err(failed("read the journal's progress"))?.cast_unsigned())
}

async fn bump_version(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let done = sqlx::query("UPDATE catalog_version SET version = version + 1").execute(connection).await;
    done.map(|_| ()).map_err(failed("count the version up"))
}

#[async_trait]
impl Catalog for SqliteCatalog {
    async fn upto(&self) -> Result<u64, StoreError> {
        let mut connection = self.writer.acquire().await.map_err(failed("get a connection"))?;
        read_upto(&mut connection).await
    }

    async fn stage(&self, files: &[StagedFile]) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin().await.map_err(failed("begin"))?;
        for file in files {
            sqlx::query(
                "INSERT INTO file (file_id, path, tenant, day, state, from_lsn, to_lsn, created_ms)
                 VALUES (?, ?, ?, ?, 'staged', ?, ?, CAST(unixepoch('subsec') * 1000 AS INTEGER))",
            )
            .bind(file.file_id.to_string())
            .bind(file.path.as_ref())
            .bind(&file.tenant)
            .bind(&file.day)
            .bind(signed(file.from_lsn))
            .bind(signed(file.to_lsn))
            .execute(&mut *transaction)
            .await
            .map_err(failed("announce a file"))?;
        }
        transaction.commit().await.map_err(failed("commit announced files"))
    }

    async fn commit(&self, flush: &FlushCommit) -> Result<CommitOutcome, StoreError> {
        let mut transaction = self.writer.begin().await.map_err(failed("begin"))?;
        let moved = sqlx::query("UPDATE journal_progress SET upto = ? WHERE shard = ? AND upto = ?")
            .bind(signed(flush.to_lsn))
            .bind(SHARD)
            .bind(signed(flush.from_lsn.saturating_sub(1)))
            .execute(&mut *transaction)
            .await
            .map_err(failed("move the journal's progress"))?;
        if moved.rows_affected() == 0 {
            let upto = read_upto(&mut transaction).await?;
            return Ok(CommitOutcome::Elsewhere { upto });
        }
        for file in &flush.files {
            make_live(&mut transaction, file).await?;
        }
        for progress in &flush.progress {
            store_progress(&mut transaction, progress).await?;
        }
        for (agent, epoch) in &flush.epochs {
            sqlx::query("INSERT INTO agent_epoch (agent, epoch) VALUES (?, ?) ON CONFLICT (agent) DO UPDATE SET epoch = excluded.epoch")
                .bind(agent.to_string())
                .bind(signed(epoch.0))
                .execute(&mut *transaction)
                .await
                .map_err(failed("store an epoch"))?;
        }
        for (lsn, ordinal, gap) in &flush.gaps {
            insert_gap(&mut transaction, *lsn, *ordinal, gap).await?;
        }
        bump_version(&mut transaction).await?;
        transaction.commit().await.map_err(failed("commit a flush"))?;
        Ok(CommitOutcome::Committed)
    }

    async fn staged(&self) -> Result<Vec<(Uuid, Path)>, StoreError> {
        let rows = sqlx::query("SELECT file_id, path FROM file WHERE state = 'staged'")
            .fetch_all(&self.writer)
            .await;
        rows.map_err(failed("list announced files"))?.iter().map(|row| Ok((uuid(row)?, path(row)?))).collect()
    }

    async fn unstage(&self, file_id: Uuid) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM file WHERE file_id = ? AND state = 'staged'")
            .bind(file_id.to_string())
            .execute(&self.writer)
            .await;
        done.map(|_| ()).map_err(failed("forget an announced file"))
    }

    async fn files(&self, tenant: &str, prune: &Prune) -> Result<FilesAt, StoreError> {
        let mut transaction = self.readers.begin().await.map_err(failed("begin"))?;
        let upto = read_upto(&mut transaction).await?;
        let row = sqlx::query(
            "SELECT (SELECT version FROM catalog_version) AS version,
                    count(CASE WHEN state = 'live' THEN 1 END) AS live,
                    count(CASE WHEN state = 'damaged' THEN 1 END) AS damaged
             FROM file WHERE tenant = ? AND state IN ('live', 'damaged')",
        )
        .bind(tenant)
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed("count files"))?;
        let (version, total, damaged) =
            (unsigned(&row, "version")?, unsigned(&row, "live")?, unsigned(&row, "damaged")?);
        let mut select = select_files(tenant, prune);
        let rows = select.build().fetch_all(&mut *transaction).await.map_err(failed("list files"))?;
        let files = rows.iter().map(log_file).collect::<Result<_, _>>()?;
        Ok(FilesAt { upto, version, files, total, damaged })
    }

    async fn redactions(&self, tenant: &str, prune: &Prune) -> Result<Vec<(Uuid, Vec<u8>)>, StoreError> {
        let mut select = QueryBuilder::new(
            "SELECT file.file_id AS file_id, counts FROM file JOIN file_redactions ON file_redactions.file_id = file.file_id
             WHERE state = 'live' AND tenant = ",
        );
        narrow(&mut select, tenant, prune);
        let rows = select.build().fetch_all(&self.readers).await.map_err(failed("read redactions"))?;
        let decode =
            |row: &SqliteRow| Ok((uuid(row)?, row.try_get("counts").map_err(failed("read redactions"))?));
        rows.iter().map(decode).collect()
    }

    async fn gaps(&self, tenant: &str) -> Result<(u64, Vec<GapRow>), StoreError> {
        let mut transaction = self.readers.begin().await.map_err(failed("begin"))?;
        let upto = read_upto(&mut transaction).await?;
        let rows = sqlx::query("SELECT * FROM gap WHERE tenant = ? ORDER BY lsn DESC, ordinal DESC LIMIT ?")
            .bind(tenant)
            .bind(i64::try_from(GAPS_READ_MAX).unwrap_or(i64::MAX))
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed("list gaps"))?;
        let gaps = rows.iter().rev().map(gap_row).collect::<Result<_, _>>()?;
        Ok((upto, gaps))
    }

    async fn sources(&self) -> Result<Vec<SourceProgress>, StoreError> {
        let rows = sqlx::query("SELECT * FROM source_progress").fetch_all(&self.writer).await;
        let decode = |row: &SqliteRow| {
            let open: Vec<u8> = row.try_get("open_positions").map_err(failed("read positions"))?;
            Ok(SourceProgress {
                agent: agent(row)?,
                source: source(row)?,
                committed: Position::new(
                    unsigned(row, "committed_major")?,
                    unsigned(row, "committed_minor")?,
                ),
                open: positions_from_bytes(&open)?,
                cursor: row.try_get("cursor").map_err(failed("read a cursor"))?,
            })
        };
        rows.map_err(failed("list sources"))?.iter().map(decode).collect()
    }

    async fn epochs(&self) -> Result<Vec<(AgentId, Epoch)>, StoreError> {
        let rows = sqlx::query("SELECT agent, epoch FROM agent_epoch").fetch_all(&self.writer).await;
        let decode = |row: &SqliteRow| Ok((agent(row)?, Epoch(unsigned(row, "epoch")?)));
        rows.map_err(failed("list epochs"))?.iter().map(decode).collect()
    }

    async fn known_files(&self, limit: usize) -> Result<Vec<KnownFile>, StoreError> {
        let rows = sqlx::query(
            "SELECT file_id, path, bytes, rows, time_min_ns, time_max_ns, from_lsn, to_lsn, 0 AS services_within, tenant, state = 'damaged' AS is_damaged
             FROM file WHERE state IN ('live', 'damaged') ORDER BY to_lsn DESC LIMIT ?",
        )
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.writer)
        .await
        .map_err(failed("list files"))?;
        let decode = |row: &SqliteRow| {
            let is_damaged = number(row, "is_damaged")? != 0;
            Ok(KnownFile { file: log_file(row)?, tenant: text(row, "tenant")?, is_damaged })
        };
        rows.iter().map(decode).collect()
    }

    async fn checksums(&self, file_id: Uuid) -> Result<Checksums, StoreError> {
        let mut transaction = self.readers.begin().await.map_err(failed("begin"))?;
        let row = sqlx::query("SELECT sha256, crc32c FROM file WHERE file_id = ?")
            .bind(file_id.to_string())
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed("read a checksum"))?;
        let groups = sqlx::query(
            "SELECT offset_bytes, length_bytes, rows, crc32c FROM file_row_group WHERE file_id = ? ORDER BY ordinal",
        )
        .bind(file_id.to_string())
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed("read row groups"))?;
        let decode = |row: &SqliteRow| {
            Ok(RowGroupFacts {
                offset_bytes: unsigned(row, "offset_bytes")?,
                length_bytes: unsigned(row, "length_bytes")?,
                rows: unsigned(row, "rows")?,
                crc32c: crc(row)?,
            })
        };
        Ok(Checksums {
            sha256: row.try_get("sha256").map_err(failed("read a checksum"))?,
            crc32c: crc(&row)?,
            row_groups: groups.iter().map(decode).collect::<Result<_, StoreError>>()?,
        })
    }

    async fn mark(&self, file_id: Uuid, damage: Option<&str>) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin().await.map_err(failed("begin"))?;
        let (from, to) = if damage.is_some() { ("live", "damaged") } else { ("damaged", "live") };
        sqlx::query("UPDATE file SET state = ?, damage = ? WHERE file_id = ? AND state = ?")
            .bind(to)
            .bind(damage)
            .bind(file_id.to_string())
            .bind(from)
            .execute(&mut *transaction)
            .await
            .map_err(failed("mark a file"))?;
        bump_version(&mut transaction).await?;
        transaction.commit().await.map_err(failed("commit a mark"))
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        let row = sqlx::query(
            "SELECT count(CASE WHEN state = 'live' THEN 1 END) AS files,
                    count(CASE WHEN state = 'damaged' THEN 1 END) AS damaged,
                    coalesce(sum(CASE WHEN state = 'live' THEN rows END), 0) AS rows,
                    coalesce(sum(CASE WHEN state = 'live' THEN bytes END), 0) AS bytes
             FROM file WHERE state IN ('live', 'damaged')",
        )
        .fetch_one(&self.writer)
        .await
        .map_err(failed("sum up files"))?;
        Ok(Totals {
            files: unsigned(&row, "files")?,
            rows: unsigned(&row, "rows")?,
            bytes: unsigned(&row, "bytes")?,
            damaged_files: unsigned(&row, "damaged")?,
        })
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A file's way from announced to live; its services and row groups with it.
async fn make_live(connection: &mut SqliteConnection, file: &FileFacts) -> Result<(), StoreError> {
    let file_id = file.file_id.to_string();
    let updated = sqlx::query(
        "UPDATE file SET state = 'live', schema_version = ?, bytes = ?, rows = ?, time_min_ns = ?, time_max_ns = ?,
                services_known = ?, sha256 = ?, crc32c = ?
         WHERE file_id = ? AND state = 'staged'",
    )
    .bind(i64::from(file.schema_version))
    .bind(signed(file.bytes))
    .bind(signed(file.rows))
    .bind(file.time_min_ns)
    .bind(file.time_max_ns)
    .bind(i64::from(file.services.is_some()))
    .bind(file.sha256.as_slice())
    .bind(i64::from(file.crc32c))
    .bind(&file_id)
    .execute(&mut *connection)
    .await
    .map_err(failed("make a file live"))?;
    if updated.rows_affected() != 1 {
        return Err(StoreError::CatalogContent { what: "state of an announced file" });
    }
    for service in file.services.iter().flatten() {
        sqlx::query("INSERT INTO file_service (file_id, service) VALUES (?, ?)")
            .bind(&file_id)
            .bind(service)
            .execute(&mut *connection)
            .await
            .map_err(failed("store a file's service"))?;
    }
    if let Some(counts) = &file.redactions {
        sqlx::query("INSERT INTO file_redactions (file_id, counts) VALUES (?, ?)")
            .bind(&file_id)
            .bind(counts.as_slice())
            .execute(&mut *connection)
            .await
            .map_err(failed("store a file's redactions"))?;
    }
    for (ordinal, group) in file.row_groups.iter().enumerate() {
        sqlx::query(
            "INSERT INTO file_row_group (file_id, ordinal, offset_bytes, length_bytes, rows, crc32c) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&file_id)
        .bind(i64::try_from(ordinal).unwrap_or(i64::MAX))
        .bind(signed(group.offset_bytes))
        .bind(signed(group.length_bytes))
        .bind(signed(group.rows))
        .bind(i64::from(group.crc32c))
        .execute(&mut *connection)
        .await
        .map_err(failed("store a row group"))?;
    }
    Ok(())
}

async fn store_progress(
    connection: &mut SqliteConnection,
    progress: &SourceProgress,
) -> Result<(), StoreError> {
    let done = sqlx::query(
        "INSERT INTO source_progress (agent, source, committed_major, committed_minor, open_positions, cursor)
         VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (agent, source) DO UPDATE SET committed_major = excluded.committed_major,
            committed_minor = excluded.committed_minor, open_positions = excluded.open_positions, cursor = excluded.cursor",
    )
    .bind(progress.agent.to_string())
    .bind(progress.source.as_str())
    .bind(signed(progress.committed.major))
    .bind(signed(progress.committed.minor))
    .bind(positions_to_bytes(&progress.open))
    .bind(&progress.cursor)
    .execute(connection)
    .await;
    done.map(|_| ()).map_err(failed("store a source's position"))
}

async fn insert_gap(
    connection: &mut SqliteConnection,
    lsn: u64,
    ordinal: usize,
    gap: &GapRow,
) -> Result<(), StoreError> {
    let done = sqlx::query(
        "INSERT INTO gap (lsn, ordinal, tenant, agent, source, host, service, container, container_id, from_major, from_minor,
            to_major, to_minor, reason, bytes, timestamp_before_ns, timestamp_after_ns, received_ns)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(signed(lsn))
    .bind(i64::try_from(ordinal).unwrap_or(i64::MAX))
    .bind(&gap.tenant)
    .bind(gap.agent.to_string())
    .bind(gap.source.as_str())
    .bind(&gap.host)
    .bind(&gap.service)
    .bind(&gap.container)
    .bind(&gap.container_id)
    .bind(signed(gap.from.major))
    .bind(signed(gap.from.minor))
    .bind(signed(gap.to.major))
    .bind(signed(gap.to.minor))
    .bind(i64::from(gap.reason as u8))
    .bind(signed(gap.bytes))
    .bind(gap.timestamp_before_ns)
    .bind(gap.timestamp_after_ns)
    .bind(gap.received_ns)
    .execute(connection)
    .await;
    done.map(|_| ()).map_err(failed("store a gap"))
}

/// The live files of a tenant that may hold what a query wants, newest last row first.
fn select_files(tenant: &str, prune: &Prune) -> QueryBuilder<Sqlite> {
    let mut select =
        QueryBuilder::new("SELECT file_id, path, bytes, rows, time_min_ns, time_max_ns, from_lsn, to_lsn, ");
    match named(prune) {
        Some(services) => {
            select.push(
                "(services_known <> 0 AND NOT EXISTS (SELECT 1 FROM file_service
                  WHERE file_service.file_id = file.file_id AND service NOT IN (",
            );
            list(&mut select, services);
            select.push(")))");
        }
        None => {
            select.push("0");
        }
    }
    select.push(" AS services_within FROM file WHERE state = 'live' AND tenant = ");
    narrow(&mut select, tenant, prune);
    select.push(" ORDER BY time_max_ns DESC, file_id");
    select
}

/// The rest of a condition that ends with `tenant = `.
fn narrow(select: &mut QueryBuilder<Sqlite>, tenant: &str, prune: &Prune) {
    select.push_bind(tenant.to_owned());
    if let Some((from, to)) = prune.time_ns {
        select.push(" AND time_max_ns >= ").push_bind(from).push(" AND time_min_ns <= ").push_bind(to);
    }
    if let Some(services) = named(prune) {
        select.push(
            " AND (services_known = 0 OR EXISTS (SELECT 1 FROM file_service
               WHERE file_service.file_id = file.file_id AND service IN (",
        );
        list(select, services);
        select.push(")))");
    }
}

/// The services that are asked for, unless they are too many for the catalog.
fn named(prune: &Prune) -> Option<&Vec<String>> {
    prune.services.as_ref().filter(|services| services.len() <= PRUNE_SERVICES_MAX)
}

fn list(select: &mut QueryBuilder<Sqlite>, services: &[String]) {
    let mut list = select.separated(", ");
    for service in services {
        list.push_bind(service.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_positions_survive_their_bytes_and_half_a_position_is_refused() {
        let positions = [Position::new(u64::MAX, 0), Position::new(1, u64::MAX - 7)];
        let bytes = positions_to_bytes(&positions);
        assert_eq!(positions_from_bytes(&bytes).unwrap(), positions);
        assert!(positions_from_bytes(&bytes[..24]).is_err());
        assert!(positions_from_bytes(&[]).unwrap().is_empty());
    }
}
