-- What people work on: alerts with who looks after them, incidents that group them, and where the counts of streams stand.
-- Times are milliseconds since 1970, in UTC.

-- One row per time that an alert fired. Its id is the id of the change to firing.
CREATE TABLE alert (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    rule_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    alertname TEXT NOT NULL,
    service TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'acknowledged', 'resolved')),
    labels TEXT NOT NULL,
    value TEXT NOT NULL,
    assigned_to TEXT,
    acknowledged_by TEXT,
    acknowledged_ms INTEGER,
    resolved_by TEXT,
    resolution TEXT,
    created_ms INTEGER NOT NULL,
    resolved_ms INTEGER,
    incident_id TEXT NOT NULL
) STRICT;

CREATE INDEX alert_open ON alert (rule_id, fingerprint) WHERE status <> 'resolved';
CREATE INDEX alert_by_incident ON alert (incident_id);
CREATE INDEX alert_by_end ON alert (resolved_ms);

CREATE TABLE incident (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    subject TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    title TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'resolved')),
    opened_ms INTEGER NOT NULL,
    resolved_ms INTEGER
) STRICT;

CREATE INDEX incident_by_subject ON incident (subject, number);

-- What happened in an incident, in the order in which it did.
CREATE TABLE incident_event (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    incident_id TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    alert_id TEXT,
    actor TEXT NOT NULL,
    note TEXT NOT NULL
) STRICT;

CREATE INDEX incident_event_by_incident ON incident_event (incident_id, number);

-- The counts of each streaming rule, as JSON, with the rule they were made by: another one starts anew.
CREATE TABLE stream_state (
    rule_id TEXT NOT NULL PRIMARY KEY,
    made_by TEXT NOT NULL,
    state TEXT NOT NULL
) STRICT;

-- The last record of the journal that the counts hold. One row.
CREATE TABLE journal_place (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    lsn INTEGER NOT NULL
) STRICT;
