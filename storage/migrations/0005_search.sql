-- What sessions are sorted by that may be unknown: a column of its own, -1 then, since a page goes on
-- behind a pair (value, seq) and nothing is less than NULL. Computed, so nothing else sets it.
ALTER TABLE sessions ADD COLUMN cost_order_nusd INTEGER
  GENERATED ALWAYS AS (COALESCE(cost_nusd, -1)) VIRTUAL;
ALTER TABLE sessions ADD COLUMN tokens_order INTEGER
  GENERATED ALWAYS AS (COALESCE(input_tokens + output_tokens, input_tokens, output_tokens, -1))
  VIRTUAL;
CREATE INDEX sessions_by_cost ON sessions (project_id, cost_order_nusd, seq);
CREATE INDEX sessions_by_tokens ON sessions (project_id, tokens_order, seq);

-- The project is last: were it first, this would be taken for statements that an index of theirs
-- serves better, since SQLite expects few rows of a project.
CREATE INDEX spans_by_start ON spans (started_at_us, seq, project_id);
