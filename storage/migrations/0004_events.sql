-- The log of changes: a row for what one transaction told, so that a call costs a part of an insert
-- and not six. `sequence` is the number of the last of its `event_count` events, whose numbers
-- follow each other; `told` has their types, ids and states (events.py). No text of any call.
CREATE TABLE events (
  sequence INTEGER PRIMARY KEY,
  project_id INTEGER NOT NULL,
  at_us INTEGER NOT NULL,
  event_count INTEGER NOT NULL,
  told BLOB NOT NULL
) STRICT;

-- The number of the newest event, and of the newest that was pruned. A table's own numbers would
-- begin again when it is empty.
INSERT INTO counters (name, value) VALUES ('event', 0), ('pruned_event', 0);
