"""The plain display against the text that buildx prints."""

import io
from typing import Any

import pytest

from brickyard.cli.progress.plain import PlainDisplay


class Plain:
    """A display, drawn after each message."""

    def __init__(self, clock: Any) -> None:
        self.out = io.StringIO()
        self.clock = clock
        self.display = PlainDisplay(self.out, clock=clock, ticker=None)

    def show(self, *statuses: Any) -> None:
        """Take in messages, each drawn at once."""
        for status in statuses:
            self.display.update(status)
            self.display._draw()

    def text(self) -> str:
        """End the display; everything it wrote."""
        self.display.close()
        return self.out.getvalue()


@pytest.fixture
def plain(clock: Any) -> Plain:
    return Plain(clock)


def test_a_build(plain: Plain, events: Any) -> None:
    load = "[internal] load build definition from Dockerfile"
    run = "[stage-0 2/2] RUN make"
    plain.show(
        events.vertex(load, 0.0),
        events.item(load, "transferring dockerfile:", 120, 0, 0.01),
        events.item(load, "transferring dockerfile:", 120, 0, 0.02, completed=0.02),
        events.vertex(load, 0.0, 0.03),
        events.vertex("[stage-0 1/2] FROM base", 0.1, 0.1, cached=True),
        events.vertex(run, 0.2),
        events.log(run, "one\ntw", 0.323),
        events.log(run, "o\n", 12.7),
        events.vertex(run, 0.2, 13.25),
    )
    assert plain.text() == (
        "#1 [internal] load build definition from Dockerfile\n"
        "#1 transferring dockerfile: 120B\n"
        "#1 transferring dockerfile: 120B 0.0s done\n"
        "#1 DONE 0.0s\n"
        "\n"
        "#2 [stage-0 1/2] FROM base\n"
        "#2 CACHED\n"
        "\n"
        "#3 [stage-0 2/2] RUN make\n"
        "#3 0.123 one\n"
        "#3 12.50 two\n"
        "#3 DONE 13.1s\n"
    )


def test_a_failure_shows_its_last_lines_again(plain: Plain, events: Any) -> None:
    run, other = "[a 1/1] RUN fails", "[b 1/1] RUN sleeps"
    error = 'process "/bin/sh -c fails" did not complete successfully: exit code: 7'
    plain.show(events.vertex(run, 0.0), events.vertex(other, 0.0))
    plain.show(*(events.log(run, f"line {number}\n", number) for number in range(12)))
    plain.show(events.log(run, "no end", 12), events.vertex(run, 0.0, 12.5, error=error))
    plain.show(events.vertex(other, 0.0, 12.6, error="process: context canceled"))
    text = plain.text()
    assert f"#1 12.50 no end\n#1 ERROR: {error}\n" in text
    assert "#2 CANCELED\n" in text
    kept = "".join(f"{n}.00 line {n}\n" if n >= 10 else f"{n}.000 line {n}\n" for n in range(3, 12))
    assert text.endswith(f"------\n > [a 1/1] RUN fails:\n{kept}12.50 no end\n------\n")


def test_the_floor_is_kept_and_passed_on(plain: Plain, events: Any) -> None:
    a, b = "RUN a", "RUN b"
    plain.show(events.vertex(a, 0.0), events.vertex(b, 0.0), events.log(a, "1\n", 1), events.log(b, "1\n", 1))
    plain.clock.now += 11
    plain.show(events.log(a, "2\n", 11))
    plain.show(events.vertex(b, 0.0, 12), events.vertex(a, 0.0, 13))
    assert plain.text() == (
        "#1 RUN a\n#1 1.000 1\n#1 11.00 2\n#1 ...\n\n#2 RUN b\n#2 1.000 1\n#2 DONE 12.0s\n\n#1 RUN a\n#1 DONE 13.0s\n"
    )


def test_quiet_items_are_not_repeated(plain: Plain, events: Any) -> None:
    pull = "FROM big"
    plain.show(events.vertex(pull, 0.0))
    plain.show(*(events.item(pull, "sha256:aa", 10_000_000 + n, 100_000_000, 1 + n / 100) for n in range(50)))
    plain.show(events.item(pull, "sha256:aa", 50_000_000, 100_000_000, 2))
    plain.show(events.item(pull, "sha256:aa", 100_000_000, 100_000_000, 3, completed=3), events.vertex(pull, 0.0, 3))
    assert plain.text() == (
        "#1 FROM big\n"
        "#1 sha256:aa 10.00MB / 100.00MB 1.0s\n"
        "#1 sha256:aa 50.00MB / 100.00MB 2.0s\n"
        "#1 sha256:aa 100.00MB / 100.00MB 3.0s done\n"
        "#1 DONE 3.0s\n"
    )


def test_a_group_is_one_step(plain: Plain, events: Any) -> None:
    group = ("g1", "[internal] merge", False)
    plain.show(events.vertex("copy one", 0.0, group=("g1", "[internal] merge", True)))
    plain.show(events.vertex("copy two", 0.5, 1.0, group=group), events.vertex("copy one", 0.0, 1.5, group=group))
    assert plain.text() == "#1 [internal] merge\n#1 DONE 1.5s\n"


def test_warnings_and_two_stretches(plain: Plain, events: Any) -> None:
    plain.show(events.vertex("RUN x", 0.0, 1.0), events.warning("RUN x", "old form"), events.vertex("RUN x", 2.0, 3.0))
    assert plain.text() == "#1 RUN x\n#1 DONE 1.0s\n\n#1 RUN x\n#1 WARN: old form\n#1 DONE 2.0s\n"
