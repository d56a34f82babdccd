"""What a failure of the network says to a person."""

import re
import socket

_NUMBER = re.compile(r"^\[Errno -?\d+\] ")
_SOURCE = re.compile(r" \(_ssl\.c:\d+\)$")


def reason(error: BaseException) -> str:
    """An error's text without the numbers that Python puts before and behind it, never empty."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return "no such host: check the name and the network"
        cause = cause.__cause__ or cause.__context__
    return _SOURCE.sub("", _NUMBER.sub("", str(error))) or type(error).__name__
