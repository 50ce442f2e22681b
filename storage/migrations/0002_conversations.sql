-- Conversations: each message's bytes once (contents), its place in a chain of messages once
-- (nodes), and for each call the two places where it stood: after its input and after its answer.
-- Rows that begin with a content's id are of its project.

-- `hash` is of the parent's hash, the lead (the separator before the message) and the content.
CREATE TABLE nodes (
  id INTEGER PRIMARY KEY,
  project_id INTEGER NOT NULL,
  parent_id INTEGER,
  content_id INTEGER NOT NULL,
  depth INTEGER NOT NULL,
  hash BLOB NOT NULL,
  lead BLOB NOT NULL,
  UNIQUE (project_id, hash)
) STRICT;

CREATE INDEX nodes_by_parent ON nodes (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX nodes_by_content ON nodes (content_id);

-- What a content says where it stands as a message. `meaning` is its own alone, empty where it
-- counts for nothing.
CREATE TABLE messages (
  content_id INTEGER PRIMARY KEY,
  role TEXT NOT NULL,
  meaning BLOB NOT NULL
) STRICT;

-- The session (by `session_key`; a trace without one by the key of its own) that a message belongs
-- to, and the span with which it came, once. Full text has, or is to have, a row for each content
-- that is here.
CREATE TABLE mentions (
  content_id INTEGER NOT NULL,
  session_key INTEGER NOT NULL,
  span_seq INTEGER NOT NULL,
  PRIMARY KEY (content_id, session_key)
) STRICT, WITHOUT ROWID;

-- What is still to come into full text.
CREATE TABLE unindexed (
  content_id INTEGER PRIMARY KEY
) STRICT;

-- Which spans' envelopes have a content in one of their holes.
CREATE TABLE holes (
  content_id INTEGER NOT NULL,
  span_seq INTEGER NOT NULL,
  PRIMARY KEY (content_id, span_seq)
) STRICT, WITHOUT ROWID;

-- The index alone, without the texts: a row goes by the same text that it came with. `scope` is
-- the project. Rowids are those of contents.
CREATE VIRTUAL TABLE messages_fts USING fts5 (
  scope, text, content = '', tokenize = 'unicode61 remove_diacritics 2'
);

-- `caller` tells API keys apart, by a hash. An envelope is the body round its holes.
-- `base_meaning` is the place in an earlier call of the session from which this one goes on, and
-- `fresh_count` the number of its input messages behind it.
ALTER TABLE spans ADD COLUMN caller BLOB;
ALTER TABLE spans ADD COLUMN session_key INTEGER;
ALTER TABLE spans ADD COLUMN stored_bytes INTEGER;
ALTER TABLE spans ADD COLUMN input_node_id INTEGER;
ALTER TABLE spans ADD COLUMN output_node_id INTEGER;
ALTER TABLE spans ADD COLUMN prelude_node_id INTEGER;
ALTER TABLE spans ADD COLUMN fresh_count INTEGER;
ALTER TABLE spans ADD COLUMN base_meaning BLOB;
ALTER TABLE spans ADD COLUMN input_meaning BLOB;
ALTER TABLE spans ADD COLUMN output_meaning BLOB;
ALTER TABLE spans ADD COLUMN response_assembled INTEGER;
ALTER TABLE spans ADD COLUMN request_envelope BLOB;
ALTER TABLE spans ADD COLUMN response_envelope BLOB;

-- Headers squeezed, which leaves a tenth of them; plain where they are older.
ALTER TABLE spans ADD COLUMN request_head BLOB;
ALTER TABLE spans ADD COLUMN response_head BLOB;
UPDATE spans SET request_head = CAST(request_headers AS BLOB),
  response_head = CAST(response_headers AS BLOB);
ALTER TABLE spans DROP COLUMN request_headers;
ALTER TABLE spans DROP COLUMN response_headers;

-- `seq` is a span's own number.
CREATE UNIQUE INDEX spans_by_seq ON spans (seq);
CREATE INDEX spans_by_input_meaning ON spans (project_id, input_meaning, session_key)
  WHERE input_meaning IS NOT NULL;
CREATE INDEX spans_by_output_meaning ON spans (project_id, output_meaning, session_key)
  WHERE output_meaning IS NOT NULL;
-- The spans of a session that ended, in order.
CREATE INDEX spans_by_session ON spans (session_key, seq) WHERE session_key IS NOT NULL;
CREATE INDEX spans_by_input_node ON spans (input_node_id) WHERE input_node_id IS NOT NULL;
CREATE INDEX spans_by_output_node ON spans (output_node_id) WHERE output_node_id IS NOT NULL;

-- Traces and sessions with rowids, since their rows are wide as well: without, each took a page.
-- New are the bytes that the bodies measured and those that they added to the database;
-- `session_key` is NULL in sessions that are older than their first message.
ALTER TABLE traces RENAME TO old_traces;
CREATE TABLE traces (
  project_id INTEGER NOT NULL,
  trace_id BLOB NOT NULL,
  seq INTEGER NOT NULL,
  status TEXT NOT NULL,
  started_at_us INTEGER NOT NULL,
  last_ended_at_us INTEGER,
  span_count INTEGER NOT NULL,
  unpriced_count INTEGER NOT NULL,
  estimated_count INTEGER NOT NULL,
  received_bytes INTEGER NOT NULL,
  stored_bytes INTEGER NOT NULL DEFAULT 0,
  input_tokens INTEGER,
  output_tokens INTEGER,
  cached_input_tokens INTEGER,
  cache_write_tokens INTEGER,
  reasoning_tokens INTEGER,
  audio_input_tokens INTEGER,
  audio_output_tokens INTEGER,
  image_input_tokens INTEGER,
  image_output_tokens INTEGER,
  cost_nusd INTEGER,
  session_id TEXT,
  session_source TEXT,
  user_id TEXT,
  name TEXT NOT NULL,
  input_preview TEXT,
  output_preview TEXT,
  error TEXT,
  PRIMARY KEY (project_id, trace_id)
) STRICT;
INSERT INTO traces (
  project_id, trace_id, seq, status, started_at_us, last_ended_at_us, span_count, unpriced_count,
  estimated_count, received_bytes, input_tokens, output_tokens, cached_input_tokens,
  cache_write_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens,
  image_input_tokens, image_output_tokens, cost_nusd, session_id, session_source, user_id, name,
  input_preview, output_preview, error
) SELECT
  project_id, trace_id, seq, status, started_at_us, last_ended_at_us, span_count, unpriced_count,
  estimated_count, received_bytes, input_tokens, output_tokens, cached_input_tokens,
  cache_write_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens,
  image_input_tokens, image_output_tokens, cost_nusd, session_id, session_source, user_id, name,
  input_preview, output_preview, error
FROM old_traces;
DROP TABLE old_traces;
CREATE INDEX traces_by_start ON traces (project_id, started_at_us, seq);
CREATE INDEX traces_by_session ON traces (project_id, session_id, started_at_us, seq)
  WHERE session_id IS NOT NULL;

ALTER TABLE sessions RENAME TO old_sessions;
CREATE TABLE sessions (
  project_id INTEGER NOT NULL,
  session_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  session_key INTEGER,
  source TEXT NOT NULL,
  name TEXT,
  starred INTEGER NOT NULL DEFAULT 0,
  status TEXT NOT NULL,
  trace_count INTEGER NOT NULL,
  span_count INTEGER NOT NULL,
  failed_trace_count INTEGER NOT NULL,
  ended_trace_count INTEGER NOT NULL,
  ended_duration_us INTEGER NOT NULL,
  unpriced_count INTEGER NOT NULL,
  estimated_count INTEGER NOT NULL,
  received_bytes INTEGER NOT NULL DEFAULT 0,
  stored_bytes INTEGER NOT NULL DEFAULT 0,
  input_tokens INTEGER,
  output_tokens INTEGER,
  cached_input_tokens INTEGER,
  cache_write_tokens INTEGER,
  reasoning_tokens INTEGER,
  audio_input_tokens INTEGER,
  audio_output_tokens INTEGER,
  image_input_tokens INTEGER,
  image_output_tokens INTEGER,
  cost_nusd INTEGER,
  first_started_at_us INTEGER NOT NULL,
  first_seq INTEGER NOT NULL,
  last_active_at_us INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  last_ended_at_us INTEGER,
  user_at_us INTEGER,
  user_seq INTEGER,
  output_at_us INTEGER,
  output_seq INTEGER,
  error_at_us INTEGER,
  error_seq INTEGER,
  user_id TEXT,
  first_input TEXT,
  last_output TEXT,
  last_error TEXT,
  PRIMARY KEY (project_id, session_id)
) STRICT;
INSERT INTO sessions (
  project_id, session_id, seq, source, name, starred, status, trace_count, span_count,
  failed_trace_count, ended_trace_count, ended_duration_us, unpriced_count, estimated_count,
  input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens,
  audio_input_tokens, audio_output_tokens, image_input_tokens, image_output_tokens, cost_nusd,
  first_started_at_us, first_seq, last_active_at_us, last_seq, last_ended_at_us, user_at_us,
  user_seq, output_at_us, output_seq, error_at_us, error_seq, user_id, first_input, last_output,
  last_error
) SELECT
  project_id, session_id, seq, source, name, starred, status, trace_count, span_count,
  failed_trace_count, ended_trace_count, ended_duration_us, unpriced_count, estimated_count,
  input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens,
  audio_input_tokens, audio_output_tokens, image_input_tokens, image_output_tokens, cost_nusd,
  first_started_at_us, first_seq, last_active_at_us, last_seq, last_ended_at_us, user_at_us,
  user_seq, output_at_us, output_seq, error_at_us, error_seq, user_id, first_input, last_output,
  last_error
FROM old_sessions;
DROP TABLE old_sessions;
CREATE INDEX sessions_by_activity ON sessions (project_id, last_active_at_us, seq);
CREATE INDEX sessions_by_key ON sessions (session_key) WHERE session_key IS NOT NULL;
UPDATE sessions AS s SET received_bytes = COALESCE((
  SELECT SUM(t.received_bytes) FROM traces t
  WHERE t.project_id = s.project_id AND t.session_id = s.session_id), 0);
