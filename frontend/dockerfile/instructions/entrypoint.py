"""ENTRYPOINT: the process of the image."""

from ....grammar.dockerfile.tree import Instruction
from ...lint.linter import Linter
from ..command import Command, Dispatch
from ..gotext import quoted_list
from .cmd import CommandLine, parse_line, process, used_once


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    return parse_line(node)


def apply(command: CommandLine, dispatch: Dispatch) -> None:
    """Set the image's entrypoint; a command that the stage did not set itself is dropped."""
    used_once(dispatch)
    args = process(command, dispatch)
    stage = dispatch.stage
    stage.image.config.entrypoint = args
    if "CMD" not in stage.used:
        stage.image.config.cmd = []
    dispatch.commit(f"ENTRYPOINT {quoted_list(args)}")
