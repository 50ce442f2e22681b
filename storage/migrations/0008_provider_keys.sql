-- The keys with which projects call upstreams. `sealed` is encrypted with a key that is in a file of
-- its own, and bound to this row's project and upstream.
CREATE TABLE provider_keys (
  project_id INTEGER NOT NULL,
  upstream TEXT NOT NULL,
  sealed BLOB NOT NULL,
  last_four TEXT NOT NULL,
  created_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, upstream)
) STRICT, WITHOUT ROWID;
