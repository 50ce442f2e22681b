"""The Python SDK, against a small server of the write API's contract."""
