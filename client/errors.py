"""What a client refuses before, or reports after, a solve."""


class ClientError(Exception):
    """Something the user asked for cannot be done as it stands; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
