"""Dockerfile to LLB."""
