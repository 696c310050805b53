-- From version 4 to version 5: names are compared without regard to case. Older names may differ by case alone.
CREATE INDEX prefixes_name_nocase ON prefixes (name COLLATE NOCASE);
PRAGMA user_version = 5;
