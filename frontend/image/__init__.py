"""What makes and starts the frontend image; used by `Dockerfile.frontend` alone."""
