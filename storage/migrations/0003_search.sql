-- What sessions are sorted by that may be unknown: a column of its own, -1 then, since a page goes on
-- behind a pair (value, seq) and nothing is less than NULL. Computed, so nothing else sets it.
ALTER TABLE sessions ADD COLUMN cost_order_nusd INTEGER
  GENERATED ALWAYS AS (COALESCE(cost_nusd, -1)) VIRTUAL;
ALTER TABLE sessions ADD COLUMN tokens_order INTEGER
  GENERATED ALWAYS AS (COALESCE(input_tokens + output_tokens, input_tokens, output_tokens, -1))
  VIRTUAL;
CREATE INDEX sessions_by_cost ON sessions (project_id, cost_order_nusd, seq);
CREATE INDEX sessions_by_tokens ON sessions (project_id, tokens_order, seq);

CREATE INDEX spans_by_start ON spans (project_id, started_at_us, seq);
