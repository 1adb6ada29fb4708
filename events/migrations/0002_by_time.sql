-- What happened within a time, of which type, without the events themselves.
CREATE INDEX event_by_time ON event (at_ns, type);
