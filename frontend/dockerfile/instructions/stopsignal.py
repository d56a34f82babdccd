"""STOPSIGNAL: the signal that stops a container."""

import re
from dataclasses import dataclass

from ....grammar.dockerfile.tree import Instruction
from ...lint.linter import Linter
from ..arity import exactly_one
from ..command import Command, Dispatch
from ..errors import did_you_mean, fail
from ..expansion import expand

_NAMES = frozenset(
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP "
    "TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX".split()
    + [f"RTMIN+{n}" for n in range(1, 16)]
    + [f"RTMAX-{n}" for n in range(1, 15)]
)


@dataclass(frozen=True, slots=True)
class StopSignal(Command):
    """STOPSIGNAL name or number."""

    signal: str


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    return StopSignal(node, exactly_one(node))


def apply(command: StopSignal, dispatch: Dispatch) -> None:
    """Set the image's stop signal."""
    signal = expand(dispatch, command.signal)
    if re.fullmatch(r"[+-]?[0-9]+", signal, re.ASCII):
        known = int(signal) != 0
    else:
        known = signal.upper().removeprefix("SIG") in _NAMES
    if not known:
        raise fail(dispatch.node, f"invalid signal: {signal}", did_you_mean(signal, [f"SIG{n}" for n in _NAMES]))
    dispatch.stage.image.config.stop_signal = signal
    dispatch.commit(f"STOPSIGNAL {signal}")
