-- The index of words is in parts by messages, since a word is written in one go, with all messages of a
-- part that have it. A part has the contents from `first_id` up to the next part's, each a table of its
-- own, `messages_fts_<number>`; the newest takes what comes until it is full. Without a `first_id` it is
-- free, to be used again: no table is dropped that somebody may be searching. `bytes` are of texts, with
-- so many for each of them; of `removed` ones the words are to be merged away.
CREATE TABLE text_parts (
  number INTEGER PRIMARY KEY,
  first_id INTEGER UNIQUE,
  bytes INTEGER NOT NULL,
  removed INTEGER NOT NULL
) STRICT;

ALTER TABLE messages_fts RENAME TO messages_fts_1;

-- What was there before is one part, however large, of texts of a guessed length: it is closed if they
-- would fill it. Whether words were to leave it is not known: so they are looked for once.
INSERT INTO text_parts (number, first_id, bytes, removed)
SELECT 1, 0, 512 * COUNT(*), COUNT(*) > 0 FROM messages_fts_1_docsize;
