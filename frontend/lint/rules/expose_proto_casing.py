"""ExposeProtoCasing."""

from ....grammar.dockerfile.tree import Dockerfile
from ..edit import Edit, at, replace_word
from ..linter import Warning
from ..rule import Rule

RULE = Rule(
    "ExposeProtoCasing",
    "Protocol in EXPOSE instruction should be lowercase",
)


def message(port: str) -> str:
    """The text of one warning."""
    return f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"


def fix(file: Dockerfile, warning: Warning) -> list[Edit]:
    """Write the protocol in lower case."""
    return [
        edit
        for node in at(file, warning.start)
        for word in node.words
        if message(word) == warning.message
        for edit in replace_word(file, node, word, word.lower())
    ]
