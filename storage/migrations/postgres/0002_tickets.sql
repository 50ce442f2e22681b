-- Tickets that open the event stream once, at whichever server: their hash, and whose they are.
-- A crash of the database may take them: they are good for 30 seconds.
CREATE UNLOGGED TABLE tickets (
  sha256 BYTEA PRIMARY KEY,
  project_id BIGINT NOT NULL,
  key_id BIGINT NOT NULL,
  sign_in BYTEA,
  expires_at_us BIGINT NOT NULL
);
