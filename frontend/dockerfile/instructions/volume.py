"""VOLUME: folders whose content outlives a container."""

from dataclasses import dataclass

from ....grammar.dockerfile.space import SPACES
from ....grammar.dockerfile.tree import Instruction
from ...lint.linter import Linter
from ..arity import at_least_one
from ..command import Command, Dispatch
from ..errors import fail
from ..expansion import expand
from ..flags import Flags
from ..gotext import plain_list


@dataclass(frozen=True, slots=True)
class Volume(Command):
    """VOLUME path …"""

    paths: tuple[str, ...]


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    words = at_least_one(node)
    Flags(node, {})
    paths = tuple(word.strip(SPACES) for word in words)
    if not all(paths):
        raise fail(node, "VOLUME specified can not be an empty string")
    return Volume(node, paths)


def apply(command: Volume, dispatch: Dispatch) -> None:
    """Declare the volumes."""
    paths = [expand(dispatch, path) for path in command.paths]
    if not all(paths):
        raise fail(dispatch.node, "VOLUME specified can not be an empty string")
    dispatch.stage.image.config.volumes.update((path, {}) for path in paths)
    dispatch.commit(f"VOLUME {plain_list(paths)}")
