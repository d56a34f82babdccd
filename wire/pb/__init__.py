"""Generated modules; see `wire/generate.py`."""
