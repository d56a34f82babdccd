"""BuildKit's gRPC API: the messages and services, and the transports under them."""
