-- Version 1 of the registry's database. Times are seconds since 1970.
CREATE TABLE invitations (
    token BLOB PRIMARY KEY NOT NULL CHECK (length(token) = 32),
    made_s INTEGER NOT NULL,
    expires_s INTEGER NOT NULL,
    used_s INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE prefixes (
    number INTEGER NOT NULL,
    length INTEGER NOT NULL,
    until_s INTEGER NOT NULL,
    PRIMARY KEY (number, length)
) STRICT, WITHOUT ROWID;
CREATE INDEX prefixes_until ON prefixes (until_s);
CREATE TABLE certificates (
    serial TEXT PRIMARY KEY NOT NULL,
    number INTEGER NOT NULL,
    length INTEGER NOT NULL,
    key BLOB NOT NULL CHECK (length(key) = 32),
    not_before_s INTEGER NOT NULL,
    not_after_s INTEGER NOT NULL,
    revoked_s INTEGER,
    certificate TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX certificates_key ON certificates (key);
CREATE INDEX certificates_prefix ON certificates (number, length);
CREATE TABLE announcements (
    number INTEGER NOT NULL,
    length INTEGER NOT NULL,
    endpoints TEXT NOT NULL,
    until_s INTEGER NOT NULL,
    PRIMARY KEY (number, length)
) STRICT, WITHOUT ROWID;
CREATE TABLE documents (
    kind TEXT PRIMARY KEY NOT NULL,
    version INTEGER NOT NULL,
    json TEXT NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
