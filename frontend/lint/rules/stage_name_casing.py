"""StageNameCasing."""

from ....grammar.dockerfile.tree import Dockerfile
from ..edit import Edit, at, replace_word
from ..linter import Warning
from ..rule import Rule

RULE = Rule(
    "StageNameCasing",
    "Stage names should be lowercase",
)


def message(name: str) -> str:
    """The text of one warning."""
    return f"Stage name '{name}' should be lowercase"


def fix(file: Dockerfile, warning: Warning) -> list[Edit]:
    """Write it in lower case; the places that name it go by lower case anyway."""
    return [
        edit
        for node in at(file, warning.start)
        if len(node.words) == 3
        for edit in replace_word(file, node, node.words[2], node.words[2].lower(), last=True)
    ]
