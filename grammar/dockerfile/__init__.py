"""The Dockerfile language: text to a tree with source spans."""
