"""What failures of the network say."""

import socket
import ssl

import pytest

from brickyard.wire.reasons import reason


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (OSError("odd"), "odd"),
        (TimeoutError(), "TimeoutError"),
        (ssl.SSLError(1, "certificate verify failed (_ssl.c:1006)"), "certificate verify failed"),
    ],
)
def test_reasons(error: Exception, said: str) -> None:
    assert reason(error) == said


def test_a_name_that_is_not_known() -> None:
    error = ConnectionError("[Errno -2] Name or service not known")
    error.__cause__ = socket.gaierror(socket.EAI_NONAME, "x")
    assert reason(error) == "no such host: check the name and the network"
