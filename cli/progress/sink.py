"""Where a display writes: a stream whose reader may leave without the build failing for it."""

from typing import TextIO


class Sink:
    """Passes text on to a stream until that breaks, and drops it from then on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._broken = False

    def write(self, text: str) -> int:
        """Write, or drop."""
        if not self._broken:
            try:
                return self._stream.write(text)
            except (OSError, ValueError):
                self._broken = True
        return len(text)

    def flush(self) -> None:
        """Flush, unless the stream is broken."""
        if not self._broken:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._broken = True
