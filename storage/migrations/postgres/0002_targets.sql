-- What an order has found already is not found once more: it is looked up with each page that is.
-- Rows with a negative `n` are sessions with a star, which are kept and counted once.
CREATE INDEX erasure_targets_found ON erasure_targets (project_id, erasure_id, session_id, trace_id);
