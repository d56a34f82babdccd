"""Classic BPF for seccomp (Linux's `linux/filter.h`, `linux/seccomp.h`): calls looked up by a binary search.

The program is made from its end to its start, because a jump only goes forward: whatever it leads to is there already.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .seccomp import Condition

# linux/audit.h
_AUDIT = {
    "x86_64": 0xC000003E,
    "x86": 0x40000003,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
    "riscv64": 0xC00000F3,
}
_X32_BIT = 0x40000000

# struct seccomp_data, little-endian
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_LOAD, _JUMP, _JEQ, _JGT, _JGE, _AND, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x54, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x00000000


class _Program:
    """Instructions, the last one first. A position is what the length was once the instruction had been put."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int]] = []
        self._returns: dict[int, int] = {}

    def _put(self, code: int, k: int, yes: int = 0, no: int = 0) -> int:
        self._code.append((code, yes, no, k))
        return len(self._code)

    def load(self, offset: int) -> int:
        """Fetch a word of the call; what was put before comes next."""
        return self._put(_LOAD, offset)

    def mask(self, bits: int) -> int:
        """Keep some bits of the fetched word."""
        return self._put(_AND, bits)

    def give(self, value: int) -> int:
        """A return, one that is near enough already where there is one."""
        there = self._returns.get(value)
        if there is None or len(self._code) - there > 100:
            there = self._returns[value] = self._put(_RETURN, value)
        return there

    def errno(self, number: int) -> int:
        """An answer: an errno, or 0 to let the call through."""
        return self.give(_ERRNO | number if number else _ALLOW)

    def then(self, target: int) -> None:
        """Let what is put next be followed by a position."""
        if target != len(self._code):
            self._put(_JUMP, len(self._code) - target)

    def branch(self, code: int, k: int, yes: int, no: int) -> int:
        """A conditional jump."""
        yes, no = self._near(yes), self._near(no)
        return self._put(code, k, len(self._code) - yes, len(self._code) - no)

    def _near(self, target: int) -> int:
        # It reaches 255 instructions, and one more may come between for the other way out.
        return target if len(self._code) - target <= 253 else self._put(_JUMP, len(self._code) - target)

    def bytes(self) -> bytes:
        """The program as an array of `struct sock_filter`."""
        return b"".join(struct.pack("<HBBI", *instruction) for instruction in reversed(self._code))


def assemble(
    actions: "Mapping[str, Mapping[int, int | tuple[Condition, ...]]]", default: int, unknown: int, last: int
) -> bytes:
    """The program for the calls of each architecture: an errno (0 allows), or conditions one of which must hold.

    What is not listed gives the errno `default`, numbers over `last` (outside of arm's private ones) `unknown`;
    programs of another architecture are killed.
    """
    program = _Program()
    entries: list[tuple[int, int]] = []
    for architecture, table in actions.items():
        if architecture == "x32":
            continue
        x32 = None
        if architecture == "x86_64" and "x32" in actions:
            program.then(_search(program, _ranges(actions["x32"], default, unknown, last), default))
            x32 = program.mask(_X32_BIT - 1)
        tree = _search(program, _ranges(table, default, unknown, last), default)
        program.then(tree if x32 is None else program.branch(_JGE, _X32_BIT, x32, tree))
        entries.append((_AUDIT[architecture], program.load(_NUMBER)))
    start = program.give(_KILL)
    for audit, entry in reversed(entries):
        start = program.branch(_JEQ, audit, entry, start)
    program.then(start)
    program.load(_ARCHITECTURE)
    return program.bytes()


def _ranges(
    table: "Mapping[int, int | tuple[Condition, ...]]", default: int, unknown: int, last: int
) -> "list[tuple[int, int | tuple[Condition, ...]]]":
    """The first number of each run of calls with the same answer, and the answer."""
    beyond = [number for number in table if number > last]
    found: list[tuple[int, int | tuple[Condition, ...]]] = []
    for number in sorted({*range(last + 2), *beyond, *(number + 1 for number in beyond)}):
        action = table.get(number, default if number <= last else unknown)
        if not found or found[-1][1] != action:
            found.append((number, action))
    return found


def _search(program: _Program, ranges: "Sequence[tuple[int, int | tuple[Condition, ...]]]", default: int) -> int:
    if len(ranges) == 1:
        action = ranges[0][1]
        return program.errno(action) if isinstance(action, int) else _conditions(program, action, default)
    middle = len(ranges) // 2
    right = _search(program, ranges[middle:], default)
    left = _search(program, ranges[:middle], default)
    return program.branch(_JGE, ranges[middle][0], right, left)


def _conditions(program: _Program, conditions: "Sequence[Condition]", default: int) -> int:
    """Allow where one condition holds. Arguments have 64 bits, in two words; the values here have 32."""
    otherwise = program.errno(default)
    for condition in reversed(conditions):
        allow = program.errno(0)
        low = _ARGUMENTS + 8 * condition.index
        if condition.op == "MASKED_EQ":
            program.branch(_JEQ, 0, allow, otherwise)
            program.mask(condition.value)
            otherwise = program.load(low)
            continue
        if condition.op == "EQ":
            program.branch(_JEQ, condition.value, allow, otherwise)
        elif condition.op == "LT":
            program.branch(_JGE, condition.value, otherwise, allow)
        else:
            program.branch(_JGT, condition.value, allow, otherwise)
        program.branch(_JEQ, 0, program.load(low), allow if condition.op == "GT" else otherwise)
        otherwise = program.load(low + 4)
    return otherwise
