-- Full text is merged by the writer between transactions, some pages at a time, not within one when
-- that happens to be its turn: 64 pages for each level of the index were 30 ms and more.
INSERT INTO messages_fts (messages_fts, rank) VALUES ('automerge', 0);
