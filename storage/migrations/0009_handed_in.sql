-- What applications hand in: traces that are opened and ended by name, and spans of other kinds than
-- calls. A span that was handed in has no owner.

-- Of a trace, beside its session, these are facts of its own and no sums: NULL for one that only
-- calls made. `opened_seq` is the number of the first word of it, `heard_at_us` the arrival of the
-- last one while the trace is open; `tags` is a JSON array.
ALTER TABLE traces ADD COLUMN opened_seq INTEGER;
ALTER TABLE traces ADD COLUMN opened_at_us INTEGER;
ALTER TABLE traces ADD COLUMN opened_name TEXT;
ALTER TABLE traces ADD COLUMN opened_user_id TEXT;
ALTER TABLE traces ADD COLUMN closed_at_us INTEGER;
ALTER TABLE traces ADD COLUMN heard_at_us INTEGER;
ALTER TABLE traces ADD COLUMN tags TEXT;
-- Of a trace with many spans: which of them gave it what, so that no change reads them all.
ALTER TABLE traces ADD COLUMN tally BLOB;
-- The trace that a call named, which it could not join because it named another session.
ALTER TABLE traces ADD COLUMN linked_trace_id BLOB;

-- `label` is what an application calls a span of kind `custom`; `attributes` a squeezed JSON object;
-- `same_call` the span of the call that this one saw as well, which alone counts; `moved_from` the
-- trace that a call which joined the one it is in would be by itself.
ALTER TABLE spans ADD COLUMN label TEXT;
ALTER TABLE spans ADD COLUMN attributes BLOB;
ALTER TABLE spans ADD COLUMN same_call BLOB;
ALTER TABLE spans ADD COLUMN moved_from BLOB;

-- Ends that came before what they end. `told` is what they said.
CREATE TABLE early_ends (
  project_id INTEGER NOT NULL,
  ended_id BLOB NOT NULL,
  at_us INTEGER NOT NULL,
  told BLOB NOT NULL,
  PRIMARY KEY (project_id, ended_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX early_ends_by_time ON early_ends (at_us);

-- Empty, and so free, where nothing is handed in.
CREATE INDEX spans_by_external ON spans (project_id, external_trace_id)
  WHERE external_trace_id IS NOT NULL;
CREATE INDEX spans_handed_in ON spans (project_id, response_id)
  WHERE owner IS NULL AND response_id IS NOT NULL;
CREATE INDEX spans_by_parent ON spans (project_id, trace_id, parent_id)
  WHERE parent_id IS NOT NULL;
CREATE INDEX spans_moved ON spans (project_id, moved_from) WHERE moved_from IS NOT NULL;
CREATE INDEX spans_same_call ON spans (project_id, same_call) WHERE same_call IS NOT NULL;
CREATE INDEX traces_open ON traces (heard_at_us) WHERE heard_at_us IS NOT NULL;
