"""Servers that share a database, for the tests of what they do together."""

from tests.sharing import join, postgresql, url

__all__ = ["join", "postgresql", "url"]
