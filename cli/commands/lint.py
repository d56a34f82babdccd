"""`brickyard lint`."""

import sys
from typing import TYPE_CHECKING

from .. import files
from ..flags import Command, Flag, Parsed, UsageError
from . import COMMANDS

if TYPE_CHECKING:
    from ...frontend.lint.linter import Warning

FORMS = ("text", "json", "sarif")

COMMAND = Command(
    "lint",
    COMMANDS["lint"],
    (
        Flag("fix", "Repair what can be repaired without a change to the build", "switch"),
        Flag("format", "text, json or sarif (default text)", metavar="form"),
    ),
    arguments="[FILE|DIR|-]...",
    most=1000,
    notes="""\
Runs Docker's build checks on every stage of the files, without fetching anything. Exits with 1 where it finds
something. `brickyard build --check` checks one target with its base images and build arguments.""",
)


def run(parsed: Parsed) -> int:
    """Check files, and repair them."""
    from ...frontend.lint.fix import fix
    from ...frontend.lint.offline import lint
    from ...grammar.errors import SourceError, excerpt

    form = parsed.text("format", "text")
    if form not in FORMS:
        raise UsageError(f"--format {form}: write {', '.join(FORMS)}")
    found: list[tuple[str, str, list[Warning]]] = []
    failed = 0
    for name in files.chosen(parsed.arguments):
        text = files.read(name)
        if files.is_template(name, text):
            if name == files.STDIN and parsed.on("fix"):
                files.write(name, text)
            continue
        try:
            if parsed.on("fix"):
                fixed = fix(text)
                for warning in fixed.warnings:
                    print(f"{name}:{warning.start}: {warning.rule.name} repaired", file=sys.stderr)
                if fixed.text != text or name == files.STDIN:
                    files.write(name, fixed.text)
                text = fixed.text
            found.append((name, text, lint(text)))
        except SourceError as error:
            print(excerpt(error, text, name), file=sys.stderr)
            failed += 1
    _print(form, found)
    return 1 if failed or any(warnings for _, _, warnings in found) else 0


def _print(form: str, found: list[tuple[str, str, list["Warning"]]]) -> None:
    if form == "text":
        stream = sys.stderr if any(name == files.STDIN for name, _, _ in found) else sys.stdout
        for name, text, warnings in found:
            lines = text.splitlines()
            for warning in warnings:
                print(f"{name}:{warning.start}: {warning.rule.name}: {warning.message}", file=stream)
                for number in range(warning.start, min(warning.end, len(lines)) + 1):
                    print(f"    {number} | {lines[number - 1]}", file=stream)
                print(f"    {warning.rule.description}\n    {warning.rule.url}\n", file=stream)
        return
    import json

    if form == "json":
        rows = [
            {
                "file": name,
                "rule": warning.rule.name,
                "message": warning.message,
                "description": warning.rule.description,
                "url": warning.rule.url,
                "start": warning.start,
                "end": warning.end,
            }
            for name, _, warnings in found
            for warning in warnings
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from ..sarif import report

    print(json.dumps(report((name, warnings) for name, _, warnings in found), indent=2, ensure_ascii=False))
