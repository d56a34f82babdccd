"""ENV: variables of the build's processes and of the image."""

from dataclasses import dataclass

from ....grammar.dockerfile.tree import Instruction, Pair
from ...lint.linter import Linter
from ...lint.rules import legacy_key_value_format, secrets_used_in_arg_or_env
from ..command import Command, Dispatch
from ..errors import fail
from ..expansion import expand
from ..flags import Flags
from ..secret_names import looks_secret


@dataclass(frozen=True, slots=True)
class Env(Command):
    """ENV key=value …"""

    pairs: tuple[Pair, ...]


def parse_pairs(node: Instruction) -> tuple[Pair, ...]:
    """The pairs of ENV and LABEL. Raises DockerfileError for none, or one without a name."""
    Flags(node, {})
    if not node.pairs:
        raise fail(node, f"{node.name} requires at least one argument", f"write {node.name} name=value")
    if any(not pair.key for pair in node.pairs):
        raise fail(node, f"{node.name} names can not be blank")
    return node.pairs


def expand_pairs(pairs: tuple[Pair, ...], dispatch: Dispatch) -> list[tuple[str, str]]:
    """The pairs with variables filled in, all from the state before the instruction."""
    if any(not pair.delimiter for pair in pairs):
        name = dispatch.node.keyword
        dispatch.warn(legacy_key_value_format.RULE, legacy_key_value_format.message(name))
    return [(expand(dispatch, pair.key), expand(dispatch, pair.value)) for pair in pairs]


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    return Env(node, parse_pairs(node))


def apply(command: Env, dispatch: Dispatch) -> None:
    """Set the variables."""
    stage = dispatch.stage
    created_by = "ENV"
    pairs = expand_pairs(command.pairs, dispatch)
    for key, value in pairs:
        if looks_secret(key):
            dispatch.warn(secrets_used_in_arg_or_env.RULE, secrets_used_in_arg_or_env.message("ENV", key))
        created_by += f" {key}={value}"
        stage.state = stage.state.with_env(key, value)
        stage.image.set_env(key, value)
    dispatch.commit(created_by)
