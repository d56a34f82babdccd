"""LLB to results."""
