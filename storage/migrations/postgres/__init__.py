"""The schema of PostgreSQL, as numbered SQL files; postgres_migrate.py applies them."""
