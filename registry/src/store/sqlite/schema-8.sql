-- From version 7 to version 8: when a node was renamed; certificates from before that can be renewed early.
ALTER TABLE prefixes ADD COLUMN renamed_s INTEGER;
PRAGMA user_version = 8;
