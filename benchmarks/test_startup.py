"""What a short command takes, which is mostly what it imports."""

import sys

import pytest
from figures import BRICKYARD, Compare, run

pytestmark = pytest.mark.goal

HEAVY = ("grpc", "lark", "httpx", "rich", "cryptography", "jinja2", "pydantic", "asyncio", "sqlite3")


def test_help(compare: Compare) -> None:
    figure = compare(
        "brickyard --help",
        lambda: run(*BRICKYARD, "--help"),
        "python -c pass",
        lambda: run(sys.executable, "-c", "pass"),
        rounds=15,
        goal="< 100 ms",
    )
    # Bare Python takes 8 to 30 ms on the machines seen, more where many tests run.
    assert figure.ours < max(0.1, 4 * figure.theirs)


@pytest.mark.parametrize("command", ["--help", "--version", "build --help", "du --help", "llb --help"])
def test_short_commands_import_nothing_heavy(command: str) -> None:
    program = (
        "import sys\nfrom brickyard.cli.main import run\n"
        f"try: run({command.split()!r})\nexcept SystemExit: None\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert run(sys.executable, "-c", program).stdout.splitlines()[-1] == "[]"
