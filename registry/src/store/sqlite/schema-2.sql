-- From version 1 to version 2: names, invitations with wishes, reports, a log that only grows.
ALTER TABLE invitations ADD COLUMN uses INTEGER NOT NULL DEFAULT 1;
ALTER TABLE invitations ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
ALTER TABLE invitations ADD COLUMN name TEXT;
ALTER TABLE invitations ADD COLUMN number INTEGER;
ALTER TABLE invitations ADD COLUMN length INTEGER;
UPDATE invitations SET used = 1 WHERE used_s IS NOT NULL;
ALTER TABLE prefixes ADD COLUMN name TEXT;
CREATE UNIQUE INDEX prefixes_name ON prefixes (name);
ALTER TABLE announcements ADD COLUMN software TEXT NOT NULL DEFAULT '';
ALTER TABLE announcements ADD COLUMN network_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE announcements ADD COLUMN network_applied INTEGER NOT NULL DEFAULT 0;
ALTER TABLE announcements ADD COLUMN revocations_version INTEGER NOT NULL DEFAULT 0;
CREATE TABLE log (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    at_s INTEGER NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL
) STRICT;
CREATE TRIGGER log_is_not_changed BEFORE UPDATE ON log BEGIN SELECT raise(ABORT, 'the log only grows'); END;
CREATE TRIGGER log_is_not_cut BEFORE DELETE ON log BEGIN SELECT raise(ABORT, 'the log only grows'); END;
ALTER TABLE certificates ADD COLUMN authority INTEGER NOT NULL DEFAULT 1;
CREATE TABLE state (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX certificates_revoked ON certificates (revoked_s) WHERE revoked_s IS NOT NULL;
PRAGMA user_version = 2;
