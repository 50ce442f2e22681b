"""The server: a reverse proxy for LLM APIs that records every call. Start reading at forward.py."""

__version__ = "0.1.0"
