"""Repairs what build checks find, where the graph and the image stay as they are.

A rule that knows a repair has a function `fix` in its module. Every repair is tried on a conversion that fetches
nothing, and is taken back when an op or the image's config would be another.
"""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from ...grammar.dockerfile.parser import parse
from .edit import apply
from .linter import Warning
from .offline import Outcome, outcome, stages

FIXABLE = {
    "ConsistentInstructionCasing": "consistent_instruction_casing",
    "ExposeProtoCasing": "expose_proto_casing",
    "FromAsCasing": "from_as_casing",
    "LegacyKeyValueFormat": "legacy_key_value_format",
    "NoEmptyContinuation": "no_empty_continuation",
    "RedundantTargetPlatform": "redundant_target_platform",
    "StageNameCasing": "stage_name_casing",
}
"""The rules that know a repair, and their modules."""

_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Fixed:
    """A file after its repair, with the findings that are gone."""

    text: str
    warnings: tuple[Warning, ...]


def fix(text: str) -> Fixed:
    """Repair a Dockerfile.

    Raises:
        SourceError: where it can't be converted as it stands.
    """
    done: list[Warning] = []
    # One repair may bring another finding: a keyword in upper case wants its AS in upper case.
    for _ in range(_ROUNDS):
        fixed = _round(text)
        done += fixed.warnings
        if fixed.text == text:
            break
        text = fixed.text
    return Fixed(text, tuple(sorted(done, key=lambda w: (w.start, w.rule.name))))


def _round(text: str) -> Fixed:
    targets = stages(text)
    before: dict[str, Outcome] = {target: outcome(text, target) for target in targets}
    done: list[Warning] = []
    for warning in sorted({w for o in before.values() for w in o.warnings}, key=lambda w: (-w.start, w.rule.name)):
        module = _module(warning)
        if module is None:
            continue
        edits = module.fix(parse(text), warning)
        if not edits:
            continue
        changed = apply(text, edits)
        after = {target: outcome(changed, target) for target in targets}
        if all(before[target].same(after[target]) for target in targets):
            text = changed
            done.append(warning)
    return Fixed(text, tuple(done))


def _module(warning: Warning) -> ModuleType | None:
    name = FIXABLE.get(warning.rule.name)
    return None if name is None else import_module(f".rules.{name}", __package__)
