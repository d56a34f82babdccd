"""What the benchmarks share: running a program, and a line of the table of figures."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BRICKYARD = (sys.executable, "-m", "brickyard")


@dataclass(frozen=True)
class Figure:
    """Seconds of ours and of the peer, the best of some rounds."""

    what: str
    ours: float
    peer: str
    theirs: float
    goal: str

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


Compare = Callable[..., Figure]


def seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def timed(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    work()
    return clock() - start


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program; what it wrote is in the error if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done
