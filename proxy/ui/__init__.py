"""The pages: handlers, formatting (view.py), templates and static files.

They ask `proxy.api` what is true, so that every figure on a page is the API's.
"""
