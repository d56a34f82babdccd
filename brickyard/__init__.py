"""Brickyard: container builds from a Dockerfile or a typed Python `build.py`, on BuildKit's LLB."""

__version__ = "0.1.0"
