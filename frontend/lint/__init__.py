"""Build checks."""
