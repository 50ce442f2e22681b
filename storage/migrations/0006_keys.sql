-- Projects with what can be set for them; who may come in, and where.
ALTER TABLE projects ADD COLUMN created_at_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE projects ADD COLUMN session_budget_nusd INTEGER;
UPDATE projects SET created_at_us = COALESCE((SELECT MIN(applied_at_us) FROM migrations), 0);

-- `sha256` is of the whole key, which is stored nowhere. Rows stay when a key is revoked: that one
-- was ever made is what turns keys on.
CREATE TABLE api_keys (
  id INTEGER PRIMARY KEY,
  project_id INTEGER NOT NULL,
  name TEXT NOT NULL,
  scope TEXT NOT NULL,
  sha256 BLOB NOT NULL UNIQUE,
  last_four TEXT NOT NULL,
  created_at_us INTEGER NOT NULL,
  last_used_at_us INTEGER,
  revoked_at_us INTEGER,
  calls_per_minute INTEGER
) STRICT;

-- Browsers that a key let in: the hash of their cookie, and the project that they look at.
CREATE TABLE sign_ins (
  sha256 BLOB PRIMARY KEY,
  key_id INTEGER NOT NULL,
  project_id INTEGER NOT NULL,
  expires_at_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
