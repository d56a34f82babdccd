"""ARG: values given from outside."""

from dataclasses import dataclass

from ....grammar.dockerfile.tree import Instruction
from ....grammar.dockerfile.words import Words
from ...lint.linter import Linter
from ...lint.rules import invalid_definition_description, secrets_used_in_arg_or_env
from ..command import Command, Dispatch
from ..descriptions import described, doc_comment
from ..errors import fail
from ..expansion import NOT_IN_ENV, report
from ..outline import ArgInfo
from ..secret_names import looks_secret


@dataclass(frozen=True, slots=True)
class Arg(Command):
    """ARG name[=default] …; None where there is no default."""

    args: tuple[tuple[str, str | None], ...]


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    if not node.words:
        raise fail(node, "ARG requires at least one argument", "write ARG name, or ARG name=default")
    args: list[tuple[str, str | None]] = []
    for word in node.words:
        key, equals, value = word.partition("=")
        if equals and not key:
            raise fail(node, "ARG names can not be blank")
        args.append((key, value if equals else None))
    names = [key for key, _ in args]
    if not described(node, names):
        rule = invalid_definition_description
        name = names[0] if len(names) == 1 else "<arg_key>"
        lint.run(rule.RULE, rule.message("ARG", name), node.span.start.line, node.span.end.line)
    return Arg(node, tuple(args))


def apply(command: Arg, dispatch: Dispatch) -> None:
    """Declare the args, with the value from outside, the default, or the global value."""
    stage = dispatch.stage
    created_by = []
    for key, default in command.args:
        if looks_secret(key):
            dispatch.warn(secrets_used_in_arg_or_env.RULE, secrets_used_in_arg_or_env.message("ARG", key))
        value = dispatch.options.build_args.get(key)
        inherited = value is None and default is None and key in dispatch.global_args
        if value is None and default is not None:
            found = Words(dispatch.escape).expand(default, stage.state.env)
            report(dispatch, found.unmatched)
            value = found.result
        elif value is None:
            value = dispatch.global_args.get(key)
        if value is not None and key not in NOT_IN_ENV:
            stage.state = stage.state.with_env(key, value)
        stage.outline.used.add(key)
        if not inherited:
            text = doc_comment(dispatch.node.comments, key)
            stage.outline.args[key] = ArgInfo(key, value or "", text, dispatch.lines)
        stage.build_args.append((key, value))
        created_by.append(key if value is None else f"{key}={value}")
    dispatch.commit("ARG " + " ".join(created_by))
