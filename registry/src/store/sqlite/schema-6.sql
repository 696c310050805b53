-- From version 5 to version 6: who created an invitation; NULL if it is older than this column.
ALTER TABLE invitations ADD COLUMN made_by TEXT;
PRAGMA user_version = 6;
