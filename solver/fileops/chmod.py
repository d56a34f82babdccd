"""Symbolic modes, as chmod(1) has them: `u=rwX,go-w`."""

import stat
from collections.abc import Callable

from .errors import FileOpError

_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o0007, "a": 0o6777}
_PERMISSIONS = {"r": 0o444, "w": 0o222, "x": 0o111}
_SHIFT = {"u": 6, "g": 3, "o": 0}

Change = Callable[[int], int]
"""From an entry's `st_mode` to its new permission bits."""


def parse_mode(text: str) -> Change:
    """The change that a mode describes; where it names nobody it is for all, without an umask.

    Raises:
        FileOpError: for what is no mode.
    """
    if text[:1].isdigit():
        try:
            bits = int(text, 8)
        except ValueError:
            bits = -1
        if not 0 <= bits <= 0o7777:
            raise _invalid(text)
        return lambda mode: bits
    steps: list[_Step] = []
    for clause in text.split(","):
        who = 0
        rest = clause.lstrip("ugoa")
        for letter in clause[: len(clause) - len(rest)]:
            who |= _WHO[letter]
        if not rest:
            raise _invalid(text)
        while rest:
            operator, rest = rest[0], rest[1:]
            if operator not in "+-=":
                raise _invalid(text)
            letters = rest[: len(rest) - len(rest.lstrip("rwxXstugo"))]
            rest = rest[len(letters) :]
            steps.append(_Step(who, operator, letters))

    def change(mode: int) -> int:
        bits = stat.S_IMODE(mode)
        for step in steps:
            bits = step.apply(bits, mode)
        return bits

    return change


def _invalid(text: str) -> FileOpError:
    return FileOpError(f"invalid mode {text!r}: it takes an octal number, or changes such as u=rwX,go-w")


class _Step:
    """One operator with what it sets, adds or takes, for some or (0) for all."""

    def __init__(self, who: int, operator: str, letters: str) -> None:
        self._who = who
        self._operator = operator
        self._letters = letters

    def apply(self, bits: int, mode: int) -> int:
        value, reach = self._value(bits, mode)
        if self._operator == "-":
            return bits & ~(value & reach)
        if self._operator == "=":
            bits &= ~(self._who or 0o6777)
        return bits | value & reach

    def _value(self, bits: int, mode: int) -> tuple[int, int]:
        """The bits that the letters stand for, and those that this step may touch."""
        reach = self._who or 0o7777
        value = 0
        for letter in self._letters:
            if letter in _PERMISSIONS:
                value |= _PERMISSIONS[letter]
            elif letter == "X":
                if self._operator == "-" or mode & 0o111 or stat.S_ISDIR(mode):
                    value |= 0o111
            elif letter in _SHIFT:
                value |= (bits >> _SHIFT[letter] & 0o7) * 0o111
            elif self._who & ~0o007 or not self._who:
                # Set-id and sticky bits are nothing that the others alone have.
                value |= 0o6000 if letter == "s" else 0o1000
                reach |= 0o1000
        return value, reach
