"""Shell words and the expansion of variables, in the forms that the Dockerfile language has.

Source: Dockerfile reference, "Environment replacement"; POSIX shell, "Parameter expansion", for the modifiers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .pattern import Pattern, PatternError, compile_pattern, reversed_pattern
from .space import SPACES

_SPACE = re.compile(f"[{SPACES}]+")
_SPECIAL = frozenset("@*#?-$!0")
_PLAIN = re.compile(r"[^$<'\"\\`\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000}/]+")
_DEPTH = 100
LONGEST_VALUES = 1 << 20
"""How much the variables of one text may add to it, in characters: `ENV A=$A$A` doubles its value each time."""


class ExpansionError(ValueError):
    """A word whose quotes or substitutions are broken, or that demands a variable which is not set.

    `unmatched` has the unset variables that were met before.
    """

    unmatched: frozenset[str] = frozenset()


@dataclass(slots=True)
class Expansion:
    """What a text became: `result` as one string, `words` split at unquoted white space, and the names looked up."""

    result: str
    words: list[str]
    matched: set[str] = field(default_factory=set)
    unmatched: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Words:
    """How words are read.

    `raw_quotes` keeps quotes and `raw_escapes` escape characters; `skip_unset` leaves unset variables as written;
    `skip_quotes` gives quotes no meaning.
    """

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    skip_unset: bool = False
    skip_quotes: bool = False

    def expand(self, text: str, env: Mapping[str, str]) -> Expansion:
        """Expand `text` with the variables of `env`.

        Raises:
            ExpansionError: for an open quote, a broken substitution, or `${name:?message}` where it is not set.
        """
        reader = _Reader(self, text, env)
        try:
            result, words = reader.until("", self.raw_escapes)
        except ExpansionError as error:
            named = ExpansionError(f"failed to process {_shown(text)}: {error}")
            named.unmatched = frozenset(reader.unmatched)
            raise named from None
        return Expansion(result, words, reader.matched, reader.unmatched)


def _shown(text: str) -> str:
    """The text for an error, or the beginning of a long one."""
    return repr(text if len(text) <= 80 else text[:79] + "…")


class _Split:
    """Collects words: white space that stands by itself or comes from a variable ends one."""

    __slots__ = ("buffer", "inside", "words")

    def __init__(self) -> None:
        self.words: list[str] = []
        self.buffer: list[str] = []
        self.inside = False

    def soft(self, text: str) -> None:
        start = 0
        for space in _SPACE.finditer(text):
            if space.start() > start:
                self.hard(text[start : space.start()])
            if self.inside:
                self.end()
            start = space.end()
        if start < len(text):
            self.hard(text[start:])

    def hard(self, text: str) -> None:
        self.buffer.append(text)
        self.inside = True

    def end(self) -> None:
        word = "".join(self.buffer)
        if word:
            self.words.append(word)
            self.buffer.clear()
            self.inside = False


class _Reader:
    def __init__(self, options: Words, text: str, env: Mapping[str, str]) -> None:
        self.options = options
        self.text = text
        self.env = env
        self.position = 0
        self.depth = 0
        self.room = LONGEST_VALUES
        self.matched: set[str] = set()
        self.unmatched: set[str] = set()

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def take(self) -> str:
        char = self.text[self.position : self.position + 1]
        self.position += 1
        return char

    @property
    def ended(self) -> bool:
        return self.position >= len(self.text)

    def until(self, stop: str, raw_escapes: bool) -> tuple[str, list[str]]:
        """Read up to `stop`, or to the end where that is empty."""
        self.depth += 1
        if self.depth > _DEPTH:
            raise ExpansionError("substitutions are nested too deeply")
        out: list[str] = []
        split = _Split()
        escape = self.options.escape
        while not self.ended:
            plain = _PLAIN.match(self.text, self.position)
            if plain is not None:
                out.append(plain[0])
                split.hard(plain[0])
                self.position = plain.end()
                continue
            char = self.peek()
            if stop and char == stop:
                self.take()
                split.end()
                self.depth -= 1
                return "".join(out), split.words
            if char == "$":
                value = self.dollar(raw_escapes)
                out.append(value)
                split.soft(value)
            elif char == "<":
                value = self.angle()
                out.append(value)
                split.hard(value)
            elif char in "'\"" and not self.options.skip_quotes:
                value = self.single() if char == "'" else self.double(raw_escapes)
                out.append(value)
                split.hard(value)
            elif char == escape:
                self.take()
                if raw_escapes:
                    out.append(char)
                    split.hard(char)
                if self.ended:
                    break
                char = self.take()
                out.append(char)
                split.hard(char)
            else:
                self.take()
                out.append(char)
                split.soft(char)
        if stop:
            raise ExpansionError(f"unexpected end of statement while looking for matching {stop}")
        split.end()
        self.depth -= 1
        return "".join(out), split.words

    def angle(self) -> str:
        """`<`, or `<<` with the blanks after it, so that a here-document's word stays in one piece."""
        self.take()
        if self.peek() != "<":
            return "<"
        self.take()
        start = self.position
        while self.peek() and self.peek() in " \t":
            self.take()
        return "<<" + self.text[start : self.position]

    def single(self) -> str:
        start = self.position
        end = self.text.find("'", start + 1)
        if end < 0:
            raise ExpansionError("unexpected end of statement while looking for matching single-quote")
        self.position = end + 1
        return self.text[start : end + 1] if self.options.raw_quotes else self.text[start + 1 : end]

    def double(self, raw_escapes: bool) -> str:
        quote = self.take() if self.options.raw_quotes else (self.take(), "")[1]
        out = [quote]
        escape = self.options.escape
        while True:
            if self.ended:
                raise ExpansionError("unexpected end of statement while looking for matching double-quote")
            char = self.peek()
            if char == '"':
                self.take()
                out.append(quote)
                return "".join(out)
            if char == "$":
                out.append(self.dollar(raw_escapes))
                continue
            self.take()
            if char == escape:
                if raw_escapes:
                    out.append(char)
                following = self.peek()
                if not following:
                    continue
                if following in ('"', "$", escape):
                    char = self.take()
            out.append(char)

    def name(self) -> str:
        start = self.position
        first = self.peek()
        if first and first.isdecimal():
            while self.peek() and self.peek().isdecimal():
                self.position += 1
        elif first and first in _SPECIAL:
            self.position += 1
        else:
            while self.peek() and (self.peek().isalpha() or self.peek().isdecimal() or self.peek() == "_"):
                self.position += 1
        return self.text[start : self.position]

    def lookup(self, name: str) -> str | None:
        value = self.env.get(name)
        (self.unmatched if value is None else self.matched).add(name)
        return value

    def dollar(self, raw_escapes: bool) -> str:
        """The value of a variable or a substitution."""
        value = self.substitution(raw_escapes)
        self.room -= len(value)
        if self.room < 0:
            raise too_long()
        return value

    def substitution(self, raw_escapes: bool) -> str:
        self.take()
        if self.peek() != "{":
            name = self.name()
            if not name:
                return "$"
            value = self.lookup(name)
            if value is None:
                return f"${name}" if self.options.skip_unset else ""
            return value
        self.take()
        if self.ended:
            raise ExpansionError("syntax error: missing '}'")
        if self.peek() in "{}:":
            raise ExpansionError("syntax error: bad substitution")
        name = self.name()
        modifier = self.take()
        if modifier == "}":
            value = self.lookup(name)
            if value is None:
                return f"${{{name}}}" if self.options.skip_unset else ""
            return value
        if modifier == "/":
            return self.replace(name)
        colon = modifier == ":"
        if colon:
            modifier = self.take()
        if not modifier:
            raise ExpansionError("syntax error: missing '}'")
        written = ":" + modifier if colon else modifier
        known = modifier in ("+", "-", "?", "#", "%")
        if (not known and not colon) or (colon and modifier in ("#", "%")):
            raise ExpansionError(f"unsupported modifier ({written}) in substitution")
        word = self.inner("}", modifier in ("#", "%"), "'}'")
        value = self.lookup(name)
        if not known:
            raise ExpansionError(f"unsupported modifier ({written}) in substitution")
        if value is None and self.options.skip_unset:
            return f"${{{name}{written}{word}}}"
        return _modified(name, value, colon, modifier, word)

    def inner(self, stop: str, raw_escapes: bool, missing: str) -> str:
        try:
            return self.until(stop, raw_escapes)[0]
        except ExpansionError:
            if self.ended:
                raise ExpansionError(f"syntax error: missing {missing}") from None
            raise

    def replace(self, name: str) -> str:
        everywhere = self.peek() == "/"
        if everywhere:
            self.take()
        pattern = self.inner("/", True, "'/' in ${}")
        replacement = self.inner("}", True, "'}'")
        value = self.lookup(name)
        if value is None:
            if self.options.skip_unset:
                return f"${{{name}/{pattern}/{replacement}}}"
            value = ""
        if everywhere:
            # Names in it mean groups of a regular expression, of which a pattern has none.
            replacement = re.sub(r"\$(\w+|\{\w+\})|\$\$", lambda m: "$" if m[0] == "$$" else "", replacement)
        replaced = _compiled(pattern).replaced(value, replacement, everywhere, self.room)
        if replaced is None:
            raise too_long()
        return replaced


def too_long() -> ExpansionError:
    """The error for values without bounds."""
    return ExpansionError(f"the values of the variables are longer than {LONGEST_VALUES} characters together")


def _compiled(pattern: str) -> Pattern:
    try:
        return compile_pattern(pattern)
    except PatternError as error:
        raise ExpansionError(str(error)) from None


def _modified(name: str, value: str | None, colon: bool, modifier: str, word: str) -> str:
    absent = value is None or (colon and value == "")
    if modifier == "-":
        return word if absent else value or ""
    if modifier == "+":
        return "" if absent else word
    if modifier == "?":
        if absent:
            reason = "is not allowed to be unset" if value is None else "is not allowed to be empty"
            raise ExpansionError(f"{name}: {word or reason}")
        return value or ""
    greedy = word[:1] == modifier
    if greedy:
        word = word[1:]
    text = value or ""
    if modifier == "#":
        found = _compiled(word)
        end = found.longest(text) if greedy else found.shortest(text)
        return text[max(end, 0) :]
    found = _compiled(reversed_pattern(word))
    end = found.longest(text[::-1]) if greedy else found.shortest(text[::-1])
    return text[: len(text) - max(end, 0)]
