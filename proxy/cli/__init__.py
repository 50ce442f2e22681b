"""The commands that ask a running server: `sessions`, `sessions show` and `tail`.

They know it by its HTTP API alone, so that every figure is the API's, written as on the pages.
"""
