"""Cache that is kept outside of the state folder: in a registry, a folder of the client, or an image."""
