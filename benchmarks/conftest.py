"""Times as ratios: what Brickyard takes, and what something everybody knows takes for the same, in turns.

A ratio holds on another machine, a time doesn't. Every benchmark adds its figures to a table that is printed at the
end; `--figures FILE` writes it as Markdown too.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from figures import BRICKYARD, Compare, Figure, run, seconds, timed
from pytest_benchmark.fixture import BenchmarkFixture

FIGURES = pytest.StashKey[list[Figure]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", type=Path, help="write the table of figures to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = [
        (figure.what, seconds(figure.ours), figure.peer, seconds(figure.theirs), f"{figure.ratio:.2f}", figure.goal)
        for figure in config.stash[FIGURES]
    ]
    if not rows:
        return
    head = ("what", "ours", "peer", "theirs", "ratio", "goal")
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in table]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    terminalreporter.section("figures")
    terminalreporter.write_line("\n".join(lines))
    if path := config.getoption("--figures"):
        path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def compare(benchmark: BenchmarkFixture, pytestconfig: pytest.Config) -> Compare:
    """Measure `ours` and `theirs` in turns and enter the best of each into the table.

    `theirs` may also be a time in seconds that is known. `before` is called ahead of each of ours, and not measured.
    `clock` is the one of the test's `benchmark` mark, if it has one.
    """

    def measure(
        what: str,
        ours: Callable[[], object],
        peer: str,
        theirs: Callable[[], object] | float,
        *,
        rounds: int = 5,
        goal: str = "",
        before: Callable[[], object] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Figure:
        times: list[float] = []

        def setup() -> None:
            if callable(theirs):
                times.append(timed(theirs, clock))
            if before is not None:
                before()

        benchmark.pedantic(ours, setup=setup, rounds=rounds, iterations=1)
        best = min(times) if callable(theirs) else theirs
        figure = Figure(what, benchmark.stats.stats.min, peer, best, goal)
        benchmark.extra_info["ratio"] = round(figure.ratio, 3)
        pytestconfig.stash[FIGURES].append(figure)
        return figure

    return measure


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The offline base as an OCI layout."""
    folder = tmp_path_factory.mktemp("base") / "layout"
    run(*BRICKYARD, "base", "make", folder)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A store of its own, removed at the end: pytest would keep it for some runs."""
    yield tmp_path / "root"
    shutil.rmtree(tmp_path / "root", ignore_errors=True)
