-- The index of words is merged by each transaction that adds or removes texts, as far as these go, and
-- not by whichever comes when 64 pages for each of its levels are due: that was 20 to 50 ms.
INSERT INTO messages_fts (messages_fts, rank) VALUES ('automerge', 0);
