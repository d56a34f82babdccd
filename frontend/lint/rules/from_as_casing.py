"""FromAsCasing."""

from ....grammar.dockerfile.tree import Dockerfile
from ..edit import Edit, at, replace_word
from ..linter import Warning
from ..rule import Rule

RULE = Rule(
    "FromAsCasing",
    "The 'as' keyword should match the case of the 'from' keyword",
)


def message(from_word: str, as_word: str) -> str:
    """The text of one warning."""
    return f"'{as_word}' and '{from_word}' keywords' casing do not match"


def fix(file: Dockerfile, warning: Warning) -> list[Edit]:
    """Write it as the keyword is written."""
    return [
        edit
        for node in at(file, warning.start)
        if len(node.words) == 3
        for edit in replace_word(
            file, node, node.words[1], node.words[1].lower() if node.keyword.islower() else node.words[1].upper()
        )
    ]
