"""The pages: what was recorded, as HTML that a browser shows without any script."""
