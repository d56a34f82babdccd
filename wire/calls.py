"""What a gRPC call looks like from either side, whatever it runs over: blocking, and in bytes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .pb import rpc_status_pb2

Metadata = Sequence[tuple[str, str | bytes]]


class CallError(OSError):
    """A call that failed: gRPC's status `code`, and the `status` with typed details where the other side sent one."""

    def __init__(self, code: int, message: str, status: "rpc_status_pb2.Status | None" = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


class Stream(Protocol):
    """One call with messages both ways, each message as its bytes."""

    def send(self, message: bytes, *, flush: bool = True) -> None:
        """Send a message; waits while too much is under way. What isn't flushed goes with what comes next, at the
        latest when `receive` has to wait. Raises CallError where the call is over."""

    def close_send(self) -> None:
        """No more messages will be sent."""

    def receive(self) -> bytes | None:
        """The next message, None at the end. Raises CallError where the call failed."""

    def cancel(self) -> None:
        """End the call."""
