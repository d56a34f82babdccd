"""Folders of clients, kept as snapshots, so that a later build is only sent what changed."""
