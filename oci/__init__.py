"""OCI and Docker images: references, platforms, layers, layouts and the registry protocol."""
