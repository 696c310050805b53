-- From version 6 to version 7: the address from which a node announced itself; NULL if it is not known.
ALTER TABLE announcements ADD COLUMN source TEXT;
PRAGMA user_version = 7;
