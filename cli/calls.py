"""What `--call` and `--check` print: the frontend's answers about a Dockerfile."""

import json
import sys
from typing import TYPE_CHECKING, Any

from ..client.call import Answer, ask

if TYPE_CHECKING:
    from ..client.options import BuildOptions
    from ..client.solver import Solver


def run_call(solver: "Solver", options: "BuildOptions", name: str, form: str, mode: str) -> int:
    """Ask, and print the answer. Returns the exit code: 1 where checks found something."""
    from .progress import open_display

    display = open_display("quiet" if mode == "auto" else mode, sys.stderr)
    try:
        answer = ask(solver, options, name, display.update)
    finally:
        display.close()
    check = name in ("check", "lint")
    if form == "json":
        print(json.dumps(answer.document, indent=2, ensure_ascii=False))
    elif check:
        _print_checks(answer)
    else:
        print(answer.text, end="")
    if check and answer.document is not None:
        document = answer.document
        return 1 if document.get("warnings") or document.get("buildError") else answer.status
    return answer.status


def _print_checks(answer: Answer) -> None:
    document: dict[str, Any] = answer.document or {}
    count = len(document.get("warnings") or ())
    error = document.get("buildError")
    if count == 0 and not error:
        print("Check complete, no warnings found.")
        return
    if count:
        print(f"Check complete, {count} warning{'s have' if count > 1 else ' has'} been found!")
    print(answer.text, end="")
