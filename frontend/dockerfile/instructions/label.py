"""LABEL: metadata of the image."""

from dataclasses import dataclass

from ....grammar.dockerfile.tree import Instruction, Pair
from ...lint.linter import Linter
from ..command import Command, Dispatch
from .env import expand_pairs, parse_pairs


@dataclass(frozen=True, slots=True)
class Label(Command):
    """LABEL key=value …"""

    pairs: tuple[Pair, ...]


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    return Label(node, parse_pairs(node))


def apply(command: Label, dispatch: Dispatch) -> None:
    """Set the labels."""
    created_by = "LABEL"
    for key, value in expand_pairs(command.pairs, dispatch):
        dispatch.stage.image.config.labels[key] = value
        created_by += f" {key}={value}"
    dispatch.commit(created_by)
