"""Processes in a sandbox."""
