-- From version 3 to version 4: the hash of the token for which a certificate was issued; NULL if there was none, or if it
-- is not known because the certificate is older than this column.
ALTER TABLE certificates ADD COLUMN token BLOB CHECK (token IS NULL OR length(token) = 32);
PRAGMA user_version = 4;
