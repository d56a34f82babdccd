"""What goes wrong between a registry and its client."""


class RegistryError(Exception):
    """A registry that did not do what it was asked; the message says what to do about it."""

    def __init__(self, message: str, *, host: str = "", status: int = 0) -> None:
        """`status` is the answer's HTTP status, 0 where there was none."""
        super().__init__(message)
        self.host = host
        self.status = status


class Unreachable(RegistryError):
    """No connection to the registry."""


class Unauthorized(RegistryError):
    """The registry wants credentials, or others than it was given."""


class Denied(RegistryError):
    """The registry knows who asks, and refuses."""


class NotFound(RegistryError):
    """No such image, blob or repository."""


class RateLimited(RegistryError):
    """Too many requests, for longer than it makes sense to wait."""


class ServerError(RegistryError):
    """An answer that the protocol does not know."""


class ContentMismatch(RegistryError):
    """Content that is not what its digest promised."""
