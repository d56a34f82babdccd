"""ONBUILD: an instruction for the builds that start from this image."""

import re
from dataclasses import dataclass

from ....grammar.dockerfile.tree import Instruction
from ...lint.linter import Linter
from ..command import Command, Dispatch
from ..errors import fail
from ..flags import Flags

_KEYWORD = re.compile(r"^\s*ONBUILD\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Onbuild(Command):
    """ONBUILD trigger, as text with its here-documents."""

    trigger: str


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    if node.trigger is None:
        raise fail(node, "ONBUILD requires at least one argument")
    Flags(node, {})
    if node.trigger.name == "ONBUILD":
        raise fail(node, "chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if node.trigger.name in ("MAINTAINER", "FROM"):
        raise fail(node, f"{node.trigger.name} isn't allowed as an ONBUILD trigger")
    text = _KEYWORD.sub("", node.original)
    for heredoc in node.heredocs:
        text += f"\n{heredoc.content}{heredoc.name}"
    return Onbuild(node, text)


def apply(command: Onbuild, dispatch: Dispatch) -> None:
    """Add the trigger to the image."""
    dispatch.stage.image.config.on_build.append(command.trigger)
