"""Syntax tree to LLB."""
