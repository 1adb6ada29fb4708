-- The log of events. Times are since 1970, in UTC.

-- Numbers are dense: each is one more than the one before, and the oldest go first.
CREATE TABLE event (
    number INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    at_ns INTEGER NOT NULL,
    -- When it was written here; it never goes back with growing numbers.
    recorded_ms INTEGER NOT NULL,
    -- The server that it happened on.
    server TEXT NOT NULL,
    -- The event as JSON.
    body TEXT NOT NULL
) STRICT;

CREATE INDEX event_by_type ON event (type, number);
CREATE INDEX event_by_record ON event (recorded_ms);

-- Places in what events are made from, and what stands until it changes: written together with the events that follow from it.
CREATE TABLE kept (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
