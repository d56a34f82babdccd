"""The terminal display: what stands on a screen after it drew, also one that is small or changes its size."""

import io
import os
import re
from typing import Any

import pytest

from brickyard.cli.progress import open_display
from brickyard.cli.progress.tty import TtyDisplay


class Screen:
    """A terminal, as far as the display uses one."""

    def __init__(self, columns: int, lines: int) -> None:
        self.size = os.terminal_size((columns, lines))
        self.rows: list[str] = [""]
        self.row = 0

    def feed(self, text: str) -> None:
        """Do what the text says."""
        for token in re.findall(r"\x1b\[[0-9?]*[A-Za-z]|\n|\r|[^\x1b\n\r]+", text):
            if token == "\n":
                self.row += 1
                while len(self.rows) <= self.row:
                    self.rows.append("")
            elif token.startswith("\x1b"):
                self._escape(token)
            elif token != "\r":
                self.rows[self.row] = token

    def _escape(self, token: str) -> None:
        if token.endswith("A"):
            self.row -= int(token[2:-1])
            assert self.row >= 0, "the display went above where it began"
        elif token.endswith("K"):
            self.rows[self.row] = ""
        elif token.endswith("J"):
            self.rows[self.row :] = [""]

    def visible(self) -> list[str]:
        """The rows without their times."""
        return [re.sub(r"\s+\d+\.\ds$", "", row) for row in self.rows if row]


@pytest.fixture
def terminal() -> "Terminal":
    return Terminal()


class Terminal:
    """A display on a screen."""

    def __init__(self) -> None:
        self.screen = Screen(60, 12)
        self.out = io.StringIO()
        self.display = TtyDisplay(self.out, color=False, size=lambda: self.screen.size, ticker=None)

    def show(self, *statuses: Any) -> list[str]:
        """Take in messages and draw; the rows after the head."""
        for status in statuses:
            self.display.update(status)
        self.display._draw()
        return self.read()[1:]

    def read(self) -> list[str]:
        """What stands on the screen."""
        self.screen.feed(self.out.getvalue())
        self.out.seek(0)
        self.out.truncate()
        return self.screen.visible()


def test_a_build(terminal: Terminal, events: Any) -> None:
    assert terminal.show(events.vertex("FROM base", 0, 0.1, cached=True)) == [" => CACHED FROM base"]
    rows = terminal.show(events.vertex("RUN make", 0.2), events.log("RUN make", "10%\r55%\n\x1b[31mred\x1b[0m\n", 1))
    assert rows == [" => CACHED FROM base", " => RUN make", " => => # 55%", " => => # 0.800 red"]
    terminal.show(events.vertex("RUN make", 0.2, 2.0))
    terminal.display.close()
    head, *rows = terminal.read()
    assert re.fullmatch(r"\[\+\] Building \d+\.\ds \(2/2\) FINISHED", head)
    assert rows == [" => CACHED FROM base", " => RUN make"]


def test_only_the_latest_log_lines_show(terminal: Terminal, events: Any) -> None:
    terminal.show(events.vertex("RUN talk", 0))
    rows = terminal.show(*(events.log("RUN talk", f"line {n}\n", n) for n in range(20)))
    assert [row.split()[-1] for row in rows[1:]] == ["14", "15", "16", "17", "18", "19"]


def test_running_steps_stay_on_a_small_screen(terminal: Terminal, events: Any) -> None:
    terminal.screen.size = os.terminal_size((60, 6))
    terminal.show(events.vertex("RUN long", 0))
    rows = terminal.show(*(events.vertex(f"COPY {n}", 0, 1) for n in range(8)))
    assert len(rows) == 4
    assert rows[0] == " => RUN long"
    assert rows[-1] == " => COPY 7"


def test_every_step_shows_in_the_end(terminal: Terminal, events: Any) -> None:
    terminal.screen.size = os.terminal_size((60, 5))
    terminal.show(*(events.vertex(f"COPY {n}", 0, 1) for n in range(8)))
    terminal.display.close()
    assert [row.split()[-1] for row in terminal.read()[1:]] == list("01234567")


def test_lines_never_pass_the_edge(terminal: Terminal, events: Any) -> None:
    terminal.screen.size = os.terminal_size((30, 12))
    terminal.show(events.vertex("RUN echo " + "x" * 80, 0), events.vertex("RUN echo 日本語日本語日本語日本語", 0))
    for row in terminal.screen.rows:
        assert len(row) + sum(ord(char) > 0x2E80 for char in row) <= 30


def test_a_screen_that_shrinks_is_drawn_over(events: Any) -> None:
    out = io.StringIO()
    size = [os.terminal_size((80, 24))]
    display = TtyDisplay(out, color=False, size=lambda: size[0], ticker=None)
    display.update(events.vertex("RUN a", 0))
    display._draw()
    size[0] = os.terminal_size((40, 24))
    out.truncate(0)
    display._draw()
    # The step's row was 80 columns wide and takes two rows now; the head is short.
    assert "\x1b[3A" in out.getvalue()


def test_failures_and_colors(events: Any) -> None:
    out = io.StringIO()
    display = TtyDisplay(out, color=True, size=lambda: os.terminal_size((80, 24)), ticker=None)
    display.update(events.vertex("RUN bad", 0))
    display.update(events.log("RUN bad", "why\n", 0.5))
    display.update(events.vertex("RUN bad", 0, 1, error="exit code: 1"))
    display.close()
    assert "\x1b[31m => ERROR RUN bad" in out.getvalue()
    assert out.getvalue().endswith("------\n > RUN bad:\n0.500 why\n------\n")


def test_the_environment_says_how_many_log_lines() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for lines, count in (("9", 9), ("", 6), ("0", 6), ("x", 6)):
        display = open_display("tty", Terminal(), {"TERM": "xterm", "BUILDKIT_TTY_LOG_LINES": lines})
        display.close()
        assert display._log_lines == count  # type: ignore[attr-defined]
