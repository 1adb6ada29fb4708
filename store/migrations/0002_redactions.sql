-- What the pollen filter took out of a file's lines, counted: see src/rollup.rs for the bytes. A file that is not here is read.
CREATE TABLE file_redactions (
    file_id TEXT NOT NULL PRIMARY KEY,
    counts BLOB NOT NULL
);
