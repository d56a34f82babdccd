"""The patterns of ignore files and of include and exclude lists: Go's filepath.Match with `**` on top.

Source: the behaviour of moby/patternmatcher, which every client and daemon of the protocol filters files with.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_PLAIN = re.compile(r"[^*?\[\]\\]*\Z")
_STAR = "[^/]*"


class PatternError(ValueError):
    """A pattern with an open bracket, an empty or backward range, or a trailing escape."""


def clean(path: str) -> str:
    """A slash path in its shortest form, as Go's filepath.Clean gives it; "." for nothing."""
    cleaned = posixpath.normpath(path) if path else "."
    return "/" + cleaned.lstrip("/") if cleaned.startswith("//") else cleaned


def match(pattern: str, name: str) -> bool:
    """Whether a name matches a pattern as Go's filepath.Match says. Raises PatternError."""
    return re.fullmatch(translate(pattern, double_star=False), name, re.DOTALL) is not None


def translate(pattern: str, *, double_star: bool) -> str:
    """The regular expression of a pattern, to be matched in full. Raises PatternError."""
    if not double_star:
        return _joined(_tokens(pattern))
    parts = _parts(pattern)
    out = [_joined(_tokens(parts[0]))]
    for index in range(1, len(parts), 2):
        star, text = parts[index], _joined(_tokens(parts[index + 1]))
        last = index == len(parts) - 2
        if last and not parts[-1]:
            out.append("(?s:.*)")
        elif star == "**" and index == 1 and not parts[0] and _PLAIN.match("".join(parts[2:])):
            # A leading `**` before plain text is a comparison of the path's end.
            out.append("(?s:.*)" + text)
        elif not last and parts[index + 1].endswith("/"):
            # The first folders that match will do: what comes after them, the next `**` can take.
            out.append(f"(?>(?:(?s:.*?)/)??{text})")
        else:
            out.append("(?:(?s:.*)/)?" + text)
    return "".join(out)


def _ambiguous(parts: list[str]) -> bool:
    """Whether a regular expression for these parts could try very many ways: two `**` that follow parts of names."""
    return sum(bool(text) and not text.endswith("/") for text in parts[:-1:2]) > 1


def _parts(pattern: str) -> list[str]:
    """The text around the occurrences of `**` and `**/`, and these, in turns. Raises PatternError."""
    return re.split(r"(\*\*/?)", pattern) if "\\" not in pattern and "[" not in pattern else _stars(pattern)


def _stars(pattern: str) -> list[str]:
    """The text around, and the occurrences of, `**` and `**/` that are neither escaped nor in brackets."""
    parts, start, position = [], 0, 0
    while position < len(pattern):
        if pattern[position] == "\\":
            position += 2
        elif pattern[position] == "[":
            position = _bracket(pattern, position)[1]
        elif pattern.startswith("**", position):
            end = position + 2 + pattern.startswith("/", position + 2)
            parts += [pattern[start:position], pattern[position:end]]
            start = position = end
        else:
            position += 1
    return [*parts, pattern[start:]]


def _tokens(pattern: str) -> list[str]:
    """A pattern without `**` as regular expressions, each for one character or for a star. Raises PatternError."""
    out: list[str] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if char == "*":
            out.append(_STAR)
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            expression, position = _bracket(pattern, position)
            out.append(expression)
            continue
        else:
            if char == "\\":
                position += 1
                if position >= len(pattern):
                    raise PatternError(f"syntax error in pattern: {pattern!r}")
                char = pattern[position]
            out.append(re.escape(char))
        position += 1
    return out


def _joined(tokens: list[str]) -> str:
    """The regular expression of tokens, which takes a time that doesn't grow with every star.

    Each star but the last takes as little as it can, for good: what it leaves over, the next one can take.
    """
    pieces = [""]
    for token in tokens:
        if token == _STAR:
            pieces.append("")
        else:
            pieces[-1] += token
    if len(pieces) == 1:
        return pieces[0]
    return pieces[0] + "".join(f"(?>[^/]*?{piece})" for piece in pieces[1:-1]) + _STAR + pieces[-1]


def _bracket(pattern: str, start: int) -> tuple[str, int]:
    """A character class as a regular expression, and where it ends."""
    error = PatternError(f"syntax error in pattern: {pattern!r}")
    position = start + 1
    negated = pattern.startswith("^", position)
    position += negated
    out: list[str] = []

    def one() -> str:
        nonlocal position
        if position >= len(pattern) or pattern[position] in "-]":
            raise error
        if pattern[position] == "\\":
            position += 1
            if position >= len(pattern):
                raise error
        position += 1
        return pattern[position - 1]

    while not (out and pattern.startswith("]", position)):
        low = high = one()
        if pattern.startswith("-", position):
            position += 1
            high = one()
        out.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    members = "".join(out)
    if not members:
        # Only backward ranges: no character is one of them.
        return ("(?s:.)" if negated else "(?!)"), position + 1
    return f"[{'^' if negated else ''}{members}]", position + 1


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern of a list, cleaned; `negated` ones take back what earlier ones matched."""

    text: str
    negated: bool

    def __post_init__(self) -> None:
        """Raises PatternError."""
        translate(self.text, double_star=True)

    def fixed(self) -> str | None:
        """The text without a glob at its end, where what is left has no special characters."""
        text = self.text.removesuffix("/**").removesuffix("/*")
        return None if re.search(r"[*\[\]?^\\]", text) else text


class _Steps:
    """A pattern that is followed part by part: all places in a path that it can have come to, as the bits of a number.

    For what `_ambiguous` finds: there a regular expression would try every way on its own.
    """

    def __init__(self, parts: list[str]) -> None:
        self._texts = [[(token, re.compile(token, re.DOTALL)) for token in _tokens(text)] for text in parts[::2]]

    def ends(self, path: str) -> int:
        """The places in the path, from 0 to its length, where a match from its start can end."""
        whole = (1 << (len(path) + 1)) - 1
        slashes = sum(1 << index for index, char in enumerate(path) if char == "/")
        masks: dict[str, int] = {}
        places = 1
        for number, text in enumerate(self._texts):
            if number:
                after = whole & -(places & -places)
                # A `**` at the end takes anything, and any other one nothing or all up to a slash.
                at_end = number == len(self._texts) - 1 and not text
                places = after if at_end else places | (slashes & after) << 1
            for token, regex in text:
                if token not in masks:
                    masks[token] = sum(1 << index for index, char in enumerate(path) if regex.match(char))
                places = _spread(places, slashes, whole) if token == _STAR else (places & masks[token]) << 1
            if not places:
                return 0
        return places

    def matches(self, path: str) -> bool:
        """Whether the whole path matches."""
        return bool(self.ends(path) >> len(path) & 1)

    def matches_above(self, path: str) -> bool:
        """Whether the path, or a folder that it is in, matches."""
        return any(path[index] == "/" for index in _bits(self.ends(path), len(path))) or self.matches(path)


def _spread(places: int, slashes: int, whole: int) -> int:
    """The places that a star leads to: each up to the next slash."""
    out = places
    free = whole & ~slashes
    while (more := (out & free) << 1 & whole & ~out) != 0:
        out |= more
    return out


def _bits(places: int, end: int) -> Iterator[int]:
    """The places before `end`."""
    places &= (1 << end) - 1
    while places:
        yield (places & -places).bit_length() - 1
        places &= places - 1


class _Group:
    """Neighbours in a list that are all negated or all not: whichever of them matches, the outcome is the same."""

    def __init__(self, patterns: list[Pattern]) -> None:
        self.negated = patterns[0].negated
        exact, names, rest = set(), set(), []
        self._steps: list[_Steps] = []
        for pattern in patterns:
            text = pattern.text
            if _PLAIN.match(text):
                exact.add(text)
            elif text.startswith("**/") and _PLAIN.match(text[3:]) and "/" not in text[3:]:
                names.add(text[3:])
            elif _ambiguous(parts := _parts(text)):
                self._steps.append(_Steps(parts))
            else:
                rest.append(translate(text, double_star=True))
        self._exact = frozenset(exact)
        self._names = frozenset(names)
        alternatives = "|".join(rest)
        self._rest = re.compile(alternatives).fullmatch if rest else None
        every = [*rest, *map(re.escape, sorted(exact)), *(f"(?:(?s:.*)/)?{re.escape(name)}" for name in sorted(names))]
        self._deep = f"(?:{'|'.join(every) or '(?!)'})(?:/(?s:.*))?"
        self._deep_match: re.Pattern[str] | None = None

    def matches(self, path: str, name: str) -> bool:
        """Whether one of them matches just this path, whose last part is `name`."""
        if path in self._exact or name in self._names or (self._rest is not None and self._rest(path) is not None):
            return True
        return any(steps.matches(path) for steps in self._steps)

    def matches_above(self, path: str) -> bool:
        """Whether one of them matches this path or a folder that it is in."""
        if self._deep_match is None:
            self._deep_match = re.compile(self._deep)
        if self._deep_match.fullmatch(path) is not None:
            return True
        return any(steps.matches_above(path) for steps in self._steps)


def _prefixes(patterns: Iterable[Pattern]) -> tuple[str, ...] | None:
    """The patterns' plain texts as folders, None where one of them is not plain."""
    out = []
    for pattern in patterns:
        text = pattern.fixed()
        if text is None:
            return None
        out.append(text + "/")
    return tuple(out)


class Matcher:
    """A list of patterns of which the last that matches decides; one that matches a folder matches what is in it."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Raises PatternError for a pattern that is none."""
        self.patterns: list[Pattern] = []
        for given in patterns:
            text = given.strip()
            if not text:
                continue
            text = clean(text)
            negated = text.startswith("!")
            if text == "!":
                raise PatternError('illegal exclusion pattern: "!"')
            self.patterns.append(Pattern(text[1:] if negated else text, negated))
        self.exclusions = any(pattern.negated for pattern in self.patterns)
        self._positive = _prefixes(pattern for pattern in self.patterns if not pattern.negated)
        self._negated = _prefixes(pattern for pattern in self.patterns if pattern.negated)
        self._groups: list[_Group] = []
        start = 0
        for end in range(1, len(self.patterns) + 1):
            if end == len(self.patterns) or self.patterns[end].negated != self.patterns[start].negated:
                self._groups.append(_Group(self.patterns[start:end]))
                start = end

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def matches(self, path: str) -> bool:
        """Whether a relative slash path, or a folder that it is in, is matched."""
        found = False
        for group in self._groups:
            if group.negated == found and group.matches_above(path):
                found = not group.negated
        return found

    def step(self, path: str, name: str, above: int) -> tuple[bool, int]:
        """Like `matches` for a walk from the top down: cheaper, and with the walk's own view of negated patterns.

        `name` is the path's last part, and `above` what the folder that it is in gave (0 at the top). Returns
        whether the path is matched, and what is handed on to the paths in it.
        """
        found, state, bit = False, 0, 1
        for group in self._groups:
            if above & bit or (group.negated == found and group.matches(path, name)):
                state |= bit
                found = not group.negated
            bit <<= 1
        return found, state

    def may_match_below(self, folder: str) -> bool:
        """Whether a negated pattern could match something in a folder, so that the folder must be looked through."""
        return self._reaches(folder, self._negated)

    def may_include_below(self, folder: str) -> bool:
        """Whether a pattern that is not negated could match something in a folder that is not matched itself."""
        return self._reaches(folder, self._positive)

    @staticmethod
    def _reaches(folder: str, prefixes: tuple[str, ...] | None) -> bool:
        """Whether one of the plain prefixes leads through a folder; without a list, anything might."""
        if prefixes is None:
            return True
        inside = folder + "/"
        return any(prefix.startswith(inside) for prefix in prefixes)
