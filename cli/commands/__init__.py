"""The commands, one module each: it has a `COMMAND` that says what it accepts, and a `run`.

Their summaries stand here, so that the list of commands is shown without importing any of them.
"""

COMMANDS = {
    "build": "Build an image from a Dockerfile",
    "du": "Show what the build cache holds",
    "prune": "Remove build cache",
    "lint": "Check Dockerfiles, and repair them",
    "fmt": "Lay Dockerfiles out alike",
    "llb": "Show the build graph of a Dockerfile",
    "base": "Make a base image from this machine, for builds without a registry",
    "debug": "Look at the state folder itself, and repair it",
    "daemon": "Serve BuildKit's API, as buildkitd does",
    "completion": "Print a completion script for a shell",
    "version": "Show the version",
}
"""Each command with one line about it."""

ALIASES = {"b": "build"}
"""Other names of commands, as buildx has them."""
