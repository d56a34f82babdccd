"""Connections to a BuildKit API."""
