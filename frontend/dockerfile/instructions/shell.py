"""SHELL: what runs the shell form of RUN, CMD and ENTRYPOINT."""

from dataclasses import dataclass

from ....grammar.dockerfile.tree import Instruction
from ...lint.linter import Linter
from ..arity import at_least_one
from ..command import Command, Dispatch
from ..errors import fail
from ..flags import Flags
from ..gotext import plain_list


@dataclass(frozen=True, slots=True)
class Shell(Command):
    """SHELL ["program", "argument"]."""

    args: tuple[str, ...]


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    Flags(node, {})
    args = at_least_one(node)
    if not node.json:
        raise fail(node, "SHELL requires the arguments to be in JSON form", 'write SHELL ["/bin/sh", "-c"]')
    return Shell(node, args)


def apply(command: Shell, dispatch: Dispatch) -> None:
    """Set the shell."""
    dispatch.stage.image.config.shell = list(command.args)
    dispatch.commit(f"SHELL {plain_list(command.args)}")
