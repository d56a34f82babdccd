"""USER: who runs the processes of the build and of the image."""

from dataclasses import dataclass

from ....grammar.dockerfile.tree import Instruction
from ...lint.linter import Linter
from ..arity import exactly_one
from ..command import Command, Dispatch
from ..expansion import expand
from ..flags import Flags


@dataclass(frozen=True, slots=True)
class User(Command):
    """USER name[:group]."""

    user: str


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    user = exactly_one(node)
    Flags(node, {})
    return User(node, user)


def apply(command: User, dispatch: Dispatch) -> None:
    """Set the user."""
    stage = dispatch.stage
    user = expand(dispatch, command.user)
    stage.state = stage.state.with_user(user)
    stage.image.config.user = user
    dispatch.commit(f"USER {user}")
