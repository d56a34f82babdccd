"""`brickyard fmt`."""

import sys

from .. import files
from ..flags import Command, Flag, Parsed
from . import COMMANDS

COMMAND = Command(
    "fmt",
    COMMANDS["fmt"],
    (
        Flag("check", "Write nothing, and exit with 1 where a file would change", "switch"),
        Flag("diff", "Write nothing, and print what would change", "switch"),
    ),
    arguments="[FILE|DIR|-]...",
    most=1000,
    notes="""\
Lays Dockerfiles out alike: keywords in upper case, one space between words, continuation lines indented by four,
an empty line before each stage. Comments are kept, and the build is the same to the last digest.
- reads standard input and prints the result.""",
)


def run(parsed: Parsed) -> int:
    """Lay files out, in their places."""
    from ...frontend.format.dockerfile import format_dockerfile
    from ...grammar.errors import SourceError, excerpt

    dry = parsed.on("check") or parsed.on("diff")
    changed = failed = 0
    for name in files.chosen(parsed.arguments):
        text = files.read(name)
        if files.is_template(name, text):
            if name == files.STDIN and not dry:
                files.write(name, text)
            continue
        try:
            laid_out = format_dockerfile(text)
        except SourceError as error:
            print(excerpt(error, text, name), file=sys.stderr)
            failed += 1
            continue
        if laid_out == text and name != files.STDIN:
            continue
        changed += laid_out != text
        if parsed.on("diff"):
            _print_diff(name, text, laid_out)
        if not dry:
            files.write(name, laid_out)
        if name != files.STDIN:
            print(f"{'would lay out' if dry else 'laid out'} {name}", file=sys.stderr)
    return 1 if failed or (dry and changed) else 0


def _print_diff(name: str, before: str, after: str) -> None:
    from difflib import unified_diff

    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    for line in unified_diff(old, new, name, name):
        print(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n", end="")
