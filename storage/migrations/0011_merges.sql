-- The index of words is merged by each transaction that adds or removes texts, as far as these go, and
-- not by whichever comes when 64 pages for each of its levels are due: that was 20 to 50 ms.
INSERT INTO messages_fts (messages_fts, rank) VALUES ('automerge', 0);

-- Sixteen parts become one, not four: each text is merged half as often, and far less often a word is
-- written, in one go, that stands in hundreds of thousands of messages.
INSERT INTO messages_fts (messages_fts, rank) VALUES ('usermerge', 16);

-- Small parts wait for a merge of large ones until there are more of them than it has, up to seventy
-- where all are merged. Before, sixteen of them were merged at once, whatever that took.
INSERT INTO messages_fts (messages_fts, rank) VALUES ('crisismerge', 128);
