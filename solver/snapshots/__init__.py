"""File systems as layers of changes."""
