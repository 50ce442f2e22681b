-- Ids of contents and nodes are taken before their rows are there, so that one statement writes many.
INSERT INTO counters (name, value) SELECT 'id', COALESCE(MAX(id), 0) FROM (
  SELECT MAX(id) AS id FROM contents UNION ALL SELECT MAX(id) FROM nodes
) AS ids;
