"""Signals during a build."""

import signal
import subprocess
import sys

import pytest

from brickyard.cli.interrupts import Terminated, orderly

CODE = """
import sys, time
from brickyard.cli import main
from brickyard.cli.interrupts import orderly
def dispatch(argv):
    with orderly():
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            print("cleaning", flush=True)
            time.sleep({cleaning})
            print("clean", flush=True)
main._dispatch = dispatch
sys.exit(main.run([]))
"""


def started(cleaning: float) -> "subprocess.Popen[str]":
    """A command that works until it is interrupted."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE.format(cleaning=cleaning)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("number", "code", "said"), [(2, 130, "interrupted"), (15, 143, "terminated"), (1, 129, "terminated")]
)
def test_the_first_signal_cleans_up(number: int, code: int, said: str) -> None:
    process = started(0)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (code, "cleaning\nclean\n", f"ERROR: {said}\n")


def test_a_second_one_waits_and_a_third_one_kills() -> None:
    process = started(1)
    assert process.stdout is not None
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "clean\n")
    assert err.startswith("stopping; once more kills")
    process = started(60)
    assert process.stdout is not None
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("stopping; once more kills")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT


def test_the_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), orderly():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
