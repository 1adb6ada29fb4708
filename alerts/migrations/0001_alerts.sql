-- The ledger of alerts. Times are milliseconds since 1970, in UTC.

-- The state machine of each rule, as JSON.
CREATE TABLE rule_state (
    rule_id TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL
) STRICT;

-- Groups, silences and the notification log, as JSON. One row.
CREATE TABLE notifier (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    state TEXT NOT NULL
) STRICT;

-- Every change of an alert. The event id is made from the change, so that a repeat of it is the same row.
CREATE TABLE change (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    rule_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('pending', 'firing', 'resolved', 'cancelled')),
    transition TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX change_by_time ON change (at_ms);

-- Messages. Those of one group to one receiver go out in the order of their numbers.
CREATE TABLE outbox (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    receiver TEXT NOT NULL,
    group_key TEXT NOT NULL,
    notification TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'given_up')),
    attempts INTEGER NOT NULL DEFAULT 0,
    made_ms INTEGER NOT NULL,
    next_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    last_error TEXT
) STRICT;

CREATE INDEX outbox_waiting ON outbox (receiver, group_key, number) WHERE state = 'waiting';
