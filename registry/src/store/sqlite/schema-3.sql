-- From version 2 to version 3: invitations that may be published.
ALTER TABLE invitations ADD COLUMN anonymous INTEGER NOT NULL DEFAULT 0;
PRAGMA user_version = 3;
