"""What to do about a file that is missing."""

from pathlib import Path

import pytest

from brickyard.client.hints import add_hint
from brickyard.client.inputs import Inputs
from brickyard.wire.pb import errdefs_pb2

KEY = 'failed to compute cache key: failed to calculate checksum of ref abc: "{}": not found'


class Failed(Exception):
    """A failure of a solve."""

    def __init__(self, message: str, line: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        source = errdefs_pb2.Source()
        source.info.data = f"FROM a\n{line}\n".encode()
        span = source.ranges.add()
        span.start.line = span.end.line = 2
        self.sources = [source]


@pytest.mark.parametrize(
    ("message", "line", "hint"),
    [
        (KEY.format("/b.txt"), "COPY b.txt /", "there is no b.txt in the build context: did you mean a.txt?"),
        (KEY.format("/x/y"), "COPY x/y /", "there is no x/y in the build context {}"),
        (KEY.format("/a.txt"), "COPY a.txt /", "a.txt is in the context, but the ignore file leaves it out"),
        (KEY.format("/a"), "RUN --mount=type=bind,from=tools,source=a true", "there is no /a in tools"),
        ("lstat /a: no such file or directory", "COPY --from=build /a /", "there is no /a in build"),
        ("lstat /a: no such file or directory", "COPY --from=0 /a /", "there is no /a in stage 0"),
        ("exit code: 1", "RUN false", ""),
    ],
)
def test_hints(tmp_path: Path, message: str, line: str, hint: str) -> None:
    (tmp_path / "a.txt").touch()
    error = Failed(message, line)
    add_hint(error, Inputs(dirs={"context": tmp_path}))
    assert error.hint == hint.format(tmp_path)


def test_a_hint_stays(tmp_path: Path) -> None:
    error = Failed(KEY.format("/a"), "COPY a /", "look")
    add_hint(error, Inputs(dirs={"context": tmp_path}))
    assert error.hint == "look"
    remote = Failed(KEY.format("/a"), "COPY a /")
    add_hint(remote, Inputs())
    assert remote.hint == "there is no a in the build context"
    other = ValueError("x")
    add_hint(other, Inputs())
    assert not hasattr(other, "hint")
