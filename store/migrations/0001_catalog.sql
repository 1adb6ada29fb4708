-- The catalog, version 1. Positions and other unsigned 64-bit numbers are stored as the signed number with the same bits;
-- nothing compares them in SQL. Times are nanoseconds or milliseconds since 1970, UTC, as their names say.

CREATE TABLE journal_progress (
    shard INTEGER NOT NULL PRIMARY KEY,
    upto INTEGER NOT NULL
);
INSERT INTO journal_progress (shard, upto) VALUES (0, 0);

CREATE TABLE catalog_version (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    version INTEGER NOT NULL
);
INSERT INTO catalog_version (only_row, version) VALUES (1, 0);

-- state: 'staged' (announced, perhaps not written, never read), 'live', 'damaged' (was live; missing or unreadable at a start).
CREATE TABLE file (
    file_id TEXT NOT NULL PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    day TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('staged', 'live', 'damaged')),
    from_lsn INTEGER NOT NULL,
    to_lsn INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    schema_version INTEGER,
    bytes INTEGER,
    rows INTEGER,
    time_min_ns INTEGER,
    time_max_ns INTEGER,
    services_known INTEGER NOT NULL DEFAULT 0,
    sha256 BLOB,
    crc32c INTEGER,
    damage TEXT
);
CREATE INDEX file_by_time ON file (tenant, state, time_max_ns);

CREATE TABLE file_service (
    file_id TEXT NOT NULL,
    service TEXT NOT NULL,
    PRIMARY KEY (file_id, service)
) WITHOUT ROWID;

CREATE TABLE file_row_group (
    file_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    offset_bytes INTEGER NOT NULL,
    length_bytes INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    crc32c INTEGER NOT NULL,
    PRIMARY KEY (file_id, ordinal)
) WITHOUT ROWID;

CREATE TABLE source_progress (
    agent TEXT NOT NULL,
    source TEXT NOT NULL,
    committed_major INTEGER NOT NULL,
    committed_minor INTEGER NOT NULL,
    open_positions BLOB NOT NULL,
    cursor BLOB NOT NULL,
    PRIMARY KEY (agent, source)
) WITHOUT ROWID;

CREATE TABLE agent_epoch (
    agent TEXT NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE gap (
    lsn INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    agent TEXT NOT NULL,
    source TEXT NOT NULL,
    host TEXT NOT NULL,
    service TEXT NOT NULL,
    container TEXT NOT NULL,
    container_id TEXT NOT NULL,
    from_major INTEGER NOT NULL,
    from_minor INTEGER NOT NULL,
    to_major INTEGER NOT NULL,
    to_minor INTEGER NOT NULL,
    reason INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    timestamp_before_ns INTEGER NOT NULL,
    timestamp_after_ns INTEGER NOT NULL,
    received_ns INTEGER NOT NULL,
    PRIMARY KEY (lsn, ordinal)
) WITHOUT ROWID;
CREATE INDEX gap_by_tenant ON gap (tenant, lsn);
