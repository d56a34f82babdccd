"""Shell patterns in substitutions, `${name#pattern}` and the like, matched in time linear in the text.

Source: POSIX shell, "Patterns Matching Multiple Characters", without bracket expressions. `*` and `?` don't match the
end of a line, as BuildKit's don't.
"""

import re
from dataclasses import dataclass


class PatternError(ValueError):
    """A pattern with an escape that escapes nothing."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern between whose `pieces` there is a `*` each: regular expressions of fixed `lengths`.

    A regular expression with many `.*` tries all the ways to divide a text among them. Here each star but the last
    takes as little as it can, for good: what it leaves over, the next one can take.
    """

    pieces: tuple[str, ...]
    lengths: tuple[int, ...]

    def shortest(self, text: str) -> int:
        """The end of the shortest match at the start of the text, or -1."""
        match = re.match(self.pieces[0] + "".join(f"(?>.*?{piece})" for piece in self.pieces[1:]), text)
        return match.end() if match else -1

    def longest(self, text: str) -> int:
        """The end of the longest match at the start of the text, or -1."""
        match = re.match(self.pieces[0] + self._rest(), text)
        return match.end() if match else -1

    def _rest(self) -> str:
        """What comes after the first piece, as long as it can be."""
        *middle, last = self.pieces[1:] or ("",)
        return "".join(f"(?>.*?{piece})" for piece in middle) + (f".*{last}" if len(self.pieces) > 1 else "")

    def replaced(self, text: str, replacement: str, everywhere: bool, room: int) -> str | None:
        """The text with the first match, or all of them, replaced; None if that is longer than `room`."""
        first, rest = re.compile(self.pieces[0]), re.compile(self._rest())
        out: list[str] = []
        copied = start = 0
        while (found := self._find(first, rest, text, start)) is not None:
            begin, end = found
            out.append(text[copied:begin])
            room -= begin - copied
            # An empty match right after another one isn't replaced.
            if end > copied or begin == 0:
                out.append(replacement)
                room -= len(replacement)
            if room < 0:
                return None
            copied = end
            start = max(end, start + 1)
            if not everywhere or start > len(text):
                break
        out.append(text[copied:])
        return "".join(out) if len(text) - copied <= room else None

    def _find(self, first: re.Pattern[str], rest: re.Pattern[str], text: str, start: int) -> tuple[int, int] | None:
        """The first place from `start` on where the pattern matches, as long as it can there."""
        while (begin := first.search(text, start)) is not None:
            end = rest.match(text, begin.end())
            if end is not None:
                return begin.start(), end.end()
            # No star goes beyond the end of the line, so no other place on the same line can match either.
            newline = text.find("\n", begin.end())
            if newline < 0:
                return None
            start = max(begin.start() + 1, newline + 1 - self.lengths[0])
        return None


def compile_pattern(pattern: str) -> Pattern:
    """Read a pattern: `*` and `?` are wildcards, brackets stand for themselves.

    Raises:
        PatternError: for a backslash before anything but `*`, `?`, a backslash, `}` and `/`.
    """
    pieces: list[list[str]] = [[]]
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            # Two stars with nothing between them are one.
            if len(pieces) == 1 or pieces[-1]:
                pieces.append([])
        elif char == "?":
            pieces[-1].append(".")
        elif char == "\\":
            following = pattern[position : position + 1]
            # These are escaped for the sake of the substitution around the pattern.
            if following and following in "}/":
                continue
            if not following or following not in "*?\\":
                raise PatternError(f"invalid pattern ({pattern}) in substitution: invalid escape '\\{following}'")
            pieces[-1].append("\\" + following)
            position += 1
        else:
            pieces[-1].append(re.escape(char))
    return Pattern(tuple(map("".join, pieces)), tuple(map(len, pieces)))


def reversed_pattern(pattern: str) -> str:
    """A pattern read backwards, so that the shortest end of a text is found as the shortest start."""
    units = re.findall(r"\\.|.", pattern, re.DOTALL)
    return "".join(reversed(units))
