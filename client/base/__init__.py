"""Base images from this machine's own programs, for builds with no registry at hand."""
