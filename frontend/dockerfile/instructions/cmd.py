"""CMD: the default arguments of the image."""

from dataclasses import dataclass

from ....grammar.dockerfile.tree import Instruction
from ...lint.linter import Linter
from ...lint.rules import json_args_recommended, multiple_instructions_disallowed
from ..command import Command, Dispatch
from ..flags import Flags
from ..gotext import quoted_list
from ..image import shell_of


@dataclass(frozen=True, slots=True)
class CommandLine(Command):
    """A process as an array, or as text for the shell."""

    args: tuple[str, ...]
    shell: bool


def parse_line(node: Instruction) -> CommandLine:
    """The process of CMD and ENTRYPOINT."""
    Flags(node, {})
    return CommandLine(node, node.words, not node.json)


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    return parse_line(node)


def used_once(dispatch: Dispatch) -> None:
    """Warn where an earlier instruction of the same name in the stage has no effect."""
    node = dispatch.node
    earlier = dispatch.stage.used.get(node.name)
    if earlier is not None:
        rule = multiple_instructions_disallowed
        dispatch.lint.run(rule.RULE, rule.message(node.keyword), *earlier)
    dispatch.stage.used[node.name] = (node.span.start.line, node.span.end.line)


def process(command: CommandLine, dispatch: Dispatch) -> list[str]:
    """The arguments, behind the shell for the shell form."""
    if not command.shell:
        return list(command.args)
    image = dispatch.stage.image
    if not image.config.shell:
        dispatch.warn(json_args_recommended.RULE, json_args_recommended.message(dispatch.node.keyword))
    return [*shell_of(image), " ".join(command.args)]


def apply(command: CommandLine, dispatch: Dispatch) -> None:
    """Set the image's command."""
    used_once(dispatch)
    args = process(command, dispatch)
    config = dispatch.stage.image.config
    config.cmd = args
    config.args_escaped = True
    dispatch.commit(f"CMD {quoted_list(args)}")
