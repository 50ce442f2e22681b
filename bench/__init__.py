"""Speed, measured as a ratio to nginx in the same run; never part of the tests."""
