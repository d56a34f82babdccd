"""MAINTAINER: the author of the image; a label says it better."""

from dataclasses import dataclass

from ....grammar.dockerfile.tree import Instruction
from ...lint.linter import Linter
from ...lint.rules import maintainer_deprecated
from ..arity import exactly_one
from ..command import Command, Dispatch
from ..flags import Flags


@dataclass(frozen=True, slots=True)
class Maintainer(Command):
    """MAINTAINER name."""

    author: str


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    rule = maintainer_deprecated
    lint.run(rule.RULE, rule.message(), node.span.start.line, node.span.end.line)
    author = exactly_one(node)
    Flags(node, {})
    return Maintainer(node, author)


def apply(command: Maintainer, dispatch: Dispatch) -> None:
    """Set the image's author."""
    dispatch.stage.image.author = command.author
    dispatch.commit(f"MAINTAINER {command.author}")
