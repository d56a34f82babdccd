"""Dockerfiles that are templates."""
