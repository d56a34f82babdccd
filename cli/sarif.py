"""Findings as SARIF, which code hosts show beside the lines (OASIS, "SARIF Version 2.1.0")."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .. import __version__

if TYPE_CHECKING:
    from ..frontend.lint.linter import Warning


def report(found: Iterable[tuple[str, Sequence["Warning"]]]) -> dict[str, Any]:
    """One run with the findings of files, given by name."""
    rules: dict[str, dict[str, Any]] = {}
    results = []
    for name, warnings in found:
        for warning in warnings:
            rule = warning.rule
            rules.setdefault(
                rule.name,
                {
                    "id": rule.name,
                    "shortDescription": {"text": rule.description},
                    "helpUri": rule.url,
                },
            )
            results.append(
                {
                    "ruleId": rule.name,
                    "level": "warning",
                    "message": {"text": warning.message},
                    "locations": [
                        {
                            "physicalLocation": {
                                "artifactLocation": {"uri": name},
                                "region": {"startLine": max(warning.start, 1), "endLine": max(warning.end, 1)},
                            }
                        }
                    ],
                }
            )
    driver = {"name": "brickyard", "version": __version__, "rules": list(rules.values())}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
