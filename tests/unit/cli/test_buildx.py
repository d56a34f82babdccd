"""Our displays over what real buildx and BuildKit sent, against what buildx wrote itself.

`buildx/fails.rawjson` and `buildx/fails.plain` are two runs of one build with buildx 0.29.1, `--progress=rawjson` and
`--progress=plain`; only times differ. Our JSON leaves out the definition of a warning's file, which is for programs
that load the file again from its source.
"""

import base64
import io
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from brickyard.cli.progress.plain import PlainDisplay
from brickyard.cli.progress.rawjson import RawJsonDisplay
from brickyard.cli.report import print_error, print_warnings
from brickyard.wire.pb import control_pb2, errdefs_pb2

DATA = Path(__file__).parent / "buildx"


def plain_json(line: str) -> str:
    """A line in Python's spelling of JSON, its keys in their order, without definitions."""
    found = json.loads(line)
    for warning in found.get("warnings", []):
        del warning["sourceInfo"]["definition"]
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False)


LINES = [plain_json(line) for line in (DATA / "fails.rawjson").read_text().splitlines() if line[0] == "{"]


def set_time(field: Any, text: str) -> None:
    """Set a time field from Go's JSON form."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    field.seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    field.nanos = int(fraction.ljust(9, "0")) if fraction else 0


def message(line: str) -> control_pb2.StatusResponse:
    """A line of JSON as the message that it came from."""
    found, status = json.loads(line), control_pb2.StatusResponse()
    for one in found.get("vertexes", []):
        vertex = status.vertexes.add(digest=one["digest"], name=one.get("name", ""), inputs=one.get("inputs", []))
        vertex.cached, vertex.error = one.get("cached", False), one.get("error", "")
        for name in ("started", "completed"):
            if name in one:
                set_time(getattr(vertex, name), one[name])
    for one in found.get("statuses", []):
        item = status.statuses.add(ID=one["id"], vertex=one["vertex"], name=one.get("name", ""))
        item.current, item.total = one["current"], one.get("total", 0)
        for name in ("timestamp", "started", "completed"):
            if name in one:
                set_time(getattr(item, name), one[name])
    for one in found.get("logs", []):
        log = status.logs.add(vertex=one["vertex"], stream=one.get("stream", 0), msg=base64.b64decode(one["data"]))
        set_time(log.timestamp, one["timestamp"])
    for one in found.get("warnings", []):
        warning = status.warnings.add(vertex=one["vertex"], level=one.get("level", 0), url=one.get("url", ""))
        warning.short = base64.b64decode(one["short"])
        warning.detail.extend(map(base64.b64decode, one["detail"]))
        info = one["sourceInfo"]
        warning.info.filename, warning.info.data = info["filename"], base64.b64decode(info["data"])
        warning.info.language = info.get("language", "")
        for span in one["range"]:
            added = warning.ranges.add()
            for name in ("start", "end"):
                getattr(added, name).line = span[name].get("line", 0)
                getattr(added, name).character = span[name].get("character", 0)
    return status


def when(status: control_pb2.StatusResponse) -> float:
    """The latest time in a message."""
    times = [one.timestamp for one in (*status.statuses, *status.logs)]
    times += [getattr(one, name) for one in status.vertexes for name in ("started", "completed") if one.HasField(name)]
    return max((time.seconds + time.nanos / 1e9 for time in times), default=0.0)


def test_json_is_the_same() -> None:
    out = io.StringIO()
    display = RawJsonDisplay(out)
    for line in LINES:
        display.update(message(line))
    assert out.getvalue().splitlines() == LINES


def test_plain_text_is_the_same() -> None:
    out = io.StringIO()
    now = drawn = 0.0
    display = PlainDisplay(out, clock=lambda: now, ticker=None)
    warnings = []
    for status in map(message, LINES):
        # A display is drawn before the next message when that one is late, as its ticker would do.
        if (time := when(status)) > drawn + 0.15:
            display._draw()
            drawn = time
        now = max(now, time)
        display.update(status)
        warnings += status.warnings
    display.close()
    print_warnings(warnings, out, details=False)

    error = RuntimeError(
        'process "/bin/sh -c seq 1 15; echo bad;   exit 3" did not complete successfully: exit code: 3'
    )
    source = errdefs_pb2.Source(info=warnings[0].info)
    span = source.ranges.add()
    span.start.line, span.end.line = 9, 10
    error.sources = [source]  # type: ignore[attr-defined]
    print_error(error, out)
    assert normal(out.getvalue()) == normal((DATA / "fails.plain").read_text())


def normal(text: str) -> list[str]:
    """The lines without times, colors, and what names the other program."""
    text = re.sub(r"\x1b\[\d+m", "", re.sub(r"\b\d+\.\d+(?=s?\b)", "T", text))
    text = re.sub(r"^#0 .*\n\n", "", text).replace("failed to build: failed to solve: ", "")
    return [line.rstrip() for line in re.sub(r"\(use docker.*\)|\(--debug.*\)", "", text).splitlines()]
