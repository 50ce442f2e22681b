-- What a call with a budget may cost at most, from before it is made until its cost is known; of a
-- call whose cost never is, for ever.
CREATE TABLE reservations (
  project_id INTEGER NOT NULL,
  trace_id BLOB NOT NULL,
  span_id BLOB NOT NULL,
  session_id TEXT NOT NULL,
  amount_nusd INTEGER NOT NULL,
  PRIMARY KEY (project_id, trace_id, span_id)
) STRICT, WITHOUT ROWID;

-- The sum of a session's reservations is read from here alone.
CREATE INDEX reservations_by_session ON reservations (project_id, session_id, amount_nusd);

-- What a session may cost, as the newest call that had a budget says.
CREATE TABLE session_budgets (
  project_id INTEGER NOT NULL,
  session_id TEXT NOT NULL,
  limit_nusd INTEGER NOT NULL,
  PRIMARY KEY (project_id, session_id)
) STRICT, WITHOUT ROWID;
