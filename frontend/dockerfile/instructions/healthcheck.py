"""HEALTHCHECK: how a running container is tested."""

import re
from dataclasses import dataclass
from typing import Any

from ....grammar.dockerfile.tree import Instruction
from ....llb import caps
from ...lint.linter import Linter
from ..arity import at_least_one
from ..command import Command, Dispatch
from ..errors import fail
from ..flags import Flags, Kind
from ..gotext import format_duration, parse_duration, plain_list, quote, quote_number, quoted_list
from .cmd import used_once

_TIMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}
_MILLISECOND = 10**6


@dataclass(frozen=True, slots=True)
class Healthcheck(Command):
    """HEALTHCHECK CMD … or NONE; times in nanoseconds, 0 for the default."""

    test: tuple[str, ...]
    times: dict[str, int]
    retries: int


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    words = at_least_one(node)
    kind, rest = words[0].upper(), words[1:]
    if kind == "NONE":
        if rest:
            raise fail(node, "HEALTHCHECK NONE takes no arguments")
        return Healthcheck(node, ("NONE",), {}, 0)
    flags = Flags(node, dict.fromkeys((*_TIMES, "retries"), Kind.STRING))
    if kind != "CMD":
        raise fail(node, f"unknown type {words[0]!r} in HEALTHCHECK", "write HEALTHCHECK CMD … or HEALTHCHECK NONE")
    if not rest:
        raise fail(node, "missing command after HEALTHCHECK CMD")
    times = {key: _time(node, flags, flag) for flag, key in _TIMES.items()}
    text = flags.get("retries")
    if text and not (re.fullmatch(r"[+-]?[0-9]+", text, re.ASCII) and -(2**31) <= int(text) < 2**31):
        raise fail(node, f"--retries takes a number, not {text!r}", "", flags.where("retries"))
    retries = int(text or 0)
    if retries < 0:
        raise fail(node, f"--retries cannot be negative ({retries})", "", flags.where("retries"))
    return Healthcheck(node, ("CMD" if node.json else "CMD-SHELL", *rest), times, retries)


def _time(node: Instruction, flags: Flags, flag: str) -> int:
    text = flags.get(flag)
    if not text:
        return 0
    try:
        value = parse_duration(text)
    except ValueError as error:
        raise fail(node, f"--{flag}: {error}", "", flags.where(flag)) from None
    if value != 0 and value < _MILLISECOND:
        raise fail(node, f"--{flag} cannot be less than 1ms", "", flags.where(flag))
    return value


def apply(command: Healthcheck, dispatch: Dispatch) -> None:
    """Set the image's health check."""
    used_once(dispatch)
    check: dict[str, Any] = {"Test": list(command.test)}
    check |= {key: value for key, value in command.times.items() if value}
    if command.retries:
        check["Retries"] = command.retries
    dispatch.stage.image.config.healthcheck = check
    if caps.SOURCE_GIT_FETCH_BY_COMMIT not in dispatch.options.caps:
        # BuildKit before 0.30 has no such capability, and its own frontend writes the history in this form.
        old = " ".join(quote(format_duration(command.times.get(key, 0))) for key in _TIMES.values())
        dispatch.commit(f"HEALTHCHECK &{{{quoted_list(command.test)} {old} {quote_number(command.retries)}}}")
        return
    times = " ".join(f"{key}:{format_duration(command.times.get(key, 0))}" for key in _TIMES.values())
    dispatch.commit(f"HEALTHCHECK {{Test:{plain_list(command.test)} {times} Retries:{command.retries}}}")
