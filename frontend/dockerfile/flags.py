"""The flags of an instruction: which are known, of what type, and given how often."""

from collections.abc import Mapping
from enum import Enum

from ...grammar.dockerfile.tree import Flag, Instruction
from .errors import did_you_mean, fail


class Kind(Enum):
    """What a flag takes."""

    STRING = "string"
    STRINGS = "strings"
    BOOL = "bool"


class Flags:
    """The flags that an instruction was given, checked against those that it knows."""

    def __init__(self, node: Instruction, known: Mapping[str, Kind]) -> None:
        """Raises DockerfileError for a flag that is unknown, given twice, or has a wrong or missing value."""
        self._values: dict[str, list[str]] = {}
        self._flags: dict[str, list[Flag]] = {}
        for flag in node.flags:
            kind = known.get(flag.name)
            if kind is None:
                hint = did_you_mean(flag.name, known) or (
                    f"{node.name} knows " + ", ".join(f"--{name}" for name in known)
                    if known
                    else f"{node.name} takes no flags"
                )
                raise fail(node, f"unknown flag: --{flag.name}", hint, flag)
            if flag.name in self._values and kind is not Kind.STRINGS:
                raise fail(node, f"duplicate flag specified: --{flag.name}", "give it once", flag)
            self._values.setdefault(flag.name, []).append(_value(node, flag, kind))
            self._flags.setdefault(flag.name, []).append(flag)

    def get(self, name: str, default: str = "") -> str:
        """The value of a string flag."""
        return self._values.get(name, [default])[-1]

    def all(self, name: str) -> tuple[str, ...]:
        """The values of a flag that may be repeated."""
        return tuple(self._values.get(name, ()))

    def switch(self, name: str) -> bool | None:
        """The value of a boolean flag, None where it is not given."""
        return self._values[name][-1] == "true" if name in self._values else None

    def where(self, name: str, number: int = -1) -> Flag | None:
        """The flag as written, for an error that points at it."""
        return self._flags[name][number] if name in self._flags else None


def _value(node: Instruction, flag: Flag, kind: Kind) -> str:
    if kind is Kind.BOOL:
        if flag.value == "":
            raise fail(node, f"missing a value on flag: --{flag.name}", "write true or false, or nothing", flag)
        value = (flag.value or "true").lower()
        if value not in ("true", "false"):
            raise fail(node, f"expecting boolean value for flag --{flag.name}, not: {flag.value}", "", flag)
        return value
    if flag.value is None:
        raise fail(node, f"missing a value on flag: --{flag.name}", f"write --{flag.name}=VALUE", flag)
    return flag.value
