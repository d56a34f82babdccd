"""How a build shows what it does: like buildx's displays, plain, on a terminal, as JSON, or not at all."""

import os
from collections.abc import Mapping
from typing import Protocol, TextIO

from ...wire.pb import control_pb2
from ..flags import UsageError

MODES = ("auto", "plain", "tty", "rawjson", "quiet", "none")


class Display(Protocol):
    """Shows the status messages of one build. `update` may be called from any thread."""

    def update(self, status: control_pb2.StatusResponse) -> None:
        """Take in one message."""

    def close(self) -> None:
        """Show what is left, and the logs of steps that failed."""


def open_display(mode: str, stream: TextIO, environ: Mapping[str, str] = os.environ) -> Display:
    """The display for a mode; `auto` is `tty` on a terminal and `plain` elsewhere.

    Raises:
        UsageError: an unknown mode, or `tty` where there is no terminal.
    """
    terminal = stream.isatty() and environ.get("TERM") != "dumb"
    if mode == "tty" and not terminal:
        raise UsageError("--progress tty: standard error is not a terminal")
    if mode == "tty" or (mode == "auto" and terminal):
        from .tty import LOG_LINES, TtyDisplay

        lines = environ.get("BUILDKIT_TTY_LOG_LINES", "")
        count = int(lines) if lines.isdecimal() and int(lines) > 0 else LOG_LINES
        return TtyDisplay(stream, color=not environ.get("NO_COLOR"), log_lines=count)
    if mode in ("auto", "plain"):
        from .plain import PlainDisplay

        return PlainDisplay(stream)
    if mode == "rawjson":
        from .rawjson import RawJsonDisplay

        return RawJsonDisplay(stream)
    if mode in ("quiet", "none"):
        return Silent()
    raise UsageError(f"--progress {mode}: write one of {', '.join(MODES)}")


class Silent:
    """Shows nothing."""

    def update(self, status: control_pb2.StatusResponse) -> None:
        """Take in one message."""

    def close(self) -> None:
        """Nothing is left to show."""
