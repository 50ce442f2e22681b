-- All but `migrations` and `counters` belong to a project, and every key begins with it.
-- Times are integer microseconds UTC (_at_us), durations microseconds (_us), money nano-USD (_nusd).
-- There is no foreign key to projects or from spans to traces: a call that ends after its project
-- or trace was deleted must not fail the batch that it is in.

CREATE TABLE migrations (
  version INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  applied_at_us INTEGER NOT NULL
) STRICT;

CREATE TABLE projects (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;

INSERT INTO projects (id, name) VALUES (1, 'default');

-- `seq` orders rows by arrival: the tie-breaker where two began in the same microsecond.
CREATE TABLE counters (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO counters (name, value) VALUES ('seq', 0);

-- Sums over all traces of a project, so that statistics never read them all. A sum of tokens or
-- cost is known when its number of traces is above 0.
CREATE TABLE project_totals (
  project_id INTEGER PRIMARY KEY,
  trace_count INTEGER NOT NULL,
  span_count INTEGER NOT NULL,
  counted_input_traces INTEGER NOT NULL,
  counted_output_traces INTEGER NOT NULL,
  priced_traces INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  cost_nusd INTEGER NOT NULL,
  unpriced_count INTEGER NOT NULL,
  estimated_count INTEGER NOT NULL,
  received_bytes INTEGER NOT NULL,
  stored_bytes INTEGER NOT NULL
) STRICT;

-- A session's row is the sum of its traces' rows. A pair X_at_us, X_seq is the (start, seq) of the
-- trace that gave the value X: it decides whether a trace that is written later replaces it.
CREATE TABLE sessions (
  project_id INTEGER NOT NULL,
  session_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
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
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_by_activity ON sessions (project_id, last_active_at_us, seq);

-- How many spans of a session used a model.
CREATE TABLE session_models (
  project_id INTEGER NOT NULL,
  session_id TEXT NOT NULL,
  model TEXT NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY (project_id, session_id, model)
) STRICT, WITHOUT ROWID;

-- A trace's row is the sum of its spans' rows; only its session is a fact of its own.
-- `last_ended_at_us` is the latest end of any of its spans, also while another still runs.
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
) STRICT, WITHOUT ROWID;

CREATE INDEX traces_by_start ON traces (project_id, started_at_us, seq);
CREATE INDEX traces_by_session ON traces (project_id, session_id, started_at_us, seq)
  WHERE session_id IS NOT NULL;

-- With a rowid, since its rows are wide: a row without one spills into overflow pages above 1 KB.
-- Narrow columns come first, so that a sum over spans does not read the wide ones.
CREATE TABLE spans (
  project_id INTEGER NOT NULL,
  trace_id BLOB NOT NULL,
  span_id BLOB NOT NULL,
  seq INTEGER NOT NULL,
  owner BLOB,
  parent_id BLOB,
  external_trace_id BLOB,
  external_parent_id BLOB,
  state TEXT NOT NULL,
  kind TEXT NOT NULL,
  started_at_us INTEGER NOT NULL,
  duration_us INTEGER,
  checkpoint_us INTEGER,
  first_byte_us INTEGER,
  first_token_us INTEGER,
  http_status INTEGER,
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
  usage_source TEXT,
  cost_status TEXT,
  price_version TEXT,
  settled_by BLOB,
  ended_by TEXT,
  phase TEXT,
  upstream TEXT,
  provider TEXT,
  operation TEXT,
  model_requested TEXT,
  model TEXT,
  service_tier TEXT,
  response_id TEXT,
  request_size INTEGER,
  request_sha256 BLOB,
  request_content_id INTEGER,
  request_truncated INTEGER,
  request_redacted INTEGER,
  request_type TEXT,
  request_encoding TEXT,
  response_size INTEGER,
  response_sha256 BLOB,
  response_content_id INTEGER,
  response_truncated INTEGER,
  response_redacted INTEGER,
  response_type TEXT,
  response_encoding TEXT,
  name TEXT NOT NULL,
  user_id TEXT,
  error TEXT,
  input_preview TEXT,
  output_preview TEXT,
  notes TEXT,
  method TEXT,
  path TEXT,
  query TEXT,
  request_headers TEXT,
  response_headers TEXT,
  PRIMARY KEY (project_id, trace_id, span_id)
) STRICT;

CREATE INDEX spans_by_id ON spans (project_id, span_id);
CREATE INDEX spans_running ON spans (owner) WHERE state = 'running';
CREATE INDEX spans_by_response ON spans (project_id, response_id, started_at_us, seq)
  WHERE response_id IS NOT NULL;
CREATE INDEX spans_by_request_content ON spans (request_content_id)
  WHERE request_content_id IS NOT NULL;
CREATE INDEX spans_by_response_content ON spans (response_content_id)
  WHERE response_content_id IS NOT NULL;

-- Bytes, once per project. Others refer to them by `id`, which grows: an index of ids is a quarter
-- of an index of hashes and is written at its end, not all over.
CREATE TABLE contents (
  id INTEGER PRIMARY KEY,
  project_id INTEGER NOT NULL,
  sha256 BLOB NOT NULL,
  encoding TEXT NOT NULL,
  size INTEGER NOT NULL,
  data BLOB NOT NULL,
  UNIQUE (project_id, sha256)
) STRICT;
