-- What is kept, and what is to be forgotten.

-- One row for each order to forget. `kind` says what was named: a session, a user, or a query;
-- `given` is that itself, NULL once the order is carried out, for it may be what was to be forgotten.
-- Calls with a higher number than `before_seq` came later, and stay.
CREATE TABLE erasures (
  project_id INTEGER NOT NULL,
  id INTEGER NOT NULL,
  kind TEXT NOT NULL,
  extent TEXT NOT NULL,
  given TEXT,
  with_starred INTEGER NOT NULL,
  state TEXT NOT NULL,
  before_seq INTEGER NOT NULL,
  -- Where the search for what is to be erased goes on, and then the cleaning; JSON.
  place TEXT,
  asked_at_us INTEGER NOT NULL,
  began_at_us INTEGER,
  ended_at_us INTEGER,
  target_count INTEGER NOT NULL DEFAULT 0,
  done_count INTEGER NOT NULL DEFAULT 0,
  session_count INTEGER NOT NULL DEFAULT 0,
  trace_count INTEGER NOT NULL DEFAULT 0,
  span_count INTEGER NOT NULL DEFAULT 0,
  content_count INTEGER NOT NULL DEFAULT 0,
  content_bytes INTEGER NOT NULL DEFAULT 0,
  kept_starred_count INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (project_id, id)
) STRICT;
CREATE INDEX erasures_open ON erasures (id) WHERE ended_at_us IS NULL;
-- `grants` grows with each change of who may come in, so that another process sees it.
INSERT INTO counters (name, value) VALUES ('erasure', 0), ('grants', 0);

-- What an order has still to erase: a session, or a trace. A row goes with what it names.
CREATE TABLE erasure_targets (
  project_id INTEGER NOT NULL,
  erasure_id INTEGER NOT NULL,
  n INTEGER NOT NULL,
  session_id TEXT,
  trace_id BLOB,
  PRIMARY KEY (project_id, erasure_id, n)
) STRICT, WITHOUT ROWID;

-- When the content of a trace was forgotten: its calls have no bodies, texts and headers since.
-- What comes into it later makes this NULL again.
ALTER TABLE traces ADD COLUMN forgotten_at_us INTEGER;
CREATE INDEX traces_remembered ON traces (started_at_us, seq, project_id)
WHERE forgotten_at_us IS NULL;

CREATE INDEX sessions_starred ON sessions (project_id, last_active_at_us, seq) WHERE starred = 1;

-- Who goes on from a place: when a call goes, no other of its session need be read.
CREATE INDEX spans_by_base ON spans (session_key, base_meaning) WHERE base_meaning IS NOT NULL;
