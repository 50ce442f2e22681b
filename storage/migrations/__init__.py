"""The schema, as numbered SQL files; migrate.py applies them."""
