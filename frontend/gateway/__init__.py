"""The gateway role: the calls of the LLBBridge, and the entry point of the frontend image."""
