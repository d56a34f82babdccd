"""How much of a step's output is passed on."""

from brickyard.solver.ops.clip import SIZE, Clip


def written(environ: dict[str, str], *chunks: bytes, tail: bytes = b"", seconds: float = 0.0) -> bytes:
    """What is passed on of chunks that come `seconds` after one another."""
    out, now = bytearray(), [0.0]
    clip = Clip(lambda stream, data: out.extend(data), environ, lambda: now[0])
    for chunk in chunks:
        clip.write(1, chunk)
        now[0] += seconds
    clip.finish(tail)
    return bytes(out)


def test_two_mebibytes_are_passed_on() -> None:
    out = written({}, b"x" * SIZE, b"y" * 10, b"z", tail=b"rest\nlast\n")
    assert out == b"x" * SIZE + b"\n[output clipped, log limit 2MiB reached]\nlast\n"
    assert written({}, b"x" * SIZE, tail=b"a\nb\n") == b"x" * SIZE


def test_sizes() -> None:
    assert written({"BUILDKIT_STEP_LOG_MAX_SIZE": "3"}, b"abcd", b"e") == (
        b"abc\n[output clipped, log limit 3B reached]\n"
    )
    assert written({"BUILDKIT_STEP_LOG_MAX_SIZE": "-1"}, b"x" * (SIZE + 1)) == b"x" * (SIZE + 1)
    assert written({"BUILDKIT_STEP_LOG_MAX_SIZE": "wrong"}, b"x" * 9) == b"x" * 9


def test_speed_is_limited_where_that_is_asked_for() -> None:
    environ = {"BUILDKIT_STEP_LOG_MAX_SPEED": "1024"}
    clipped = b"\n[output clipped, log limit 1KiB/s reached]\n"
    assert written(environ, b"a" * 1024, b"b", b"c") == b"a" * 1024 + clipped
    assert written(environ, b"a" * 1024, b"b" * 9, b"c" * 9, seconds=1.5) == b"a" * 1024 + b"b" * 9 + b"c" * 9
