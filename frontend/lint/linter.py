"""Runs build checks as `# check=` asks: which are skipped, which experimental ones run, whether a warning fails."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from ...grammar.dockerfile.directives import parse_directives
from .rule import Rule


@dataclass(frozen=True, slots=True)
class Warning:
    """One finding; `start` and `end` are lines from 1."""

    rule: Rule
    message: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Checks:
    """The options of a `check` directive."""

    skip: frozenset[str] = frozenset()
    skip_all: bool = False
    experimental: frozenset[str] = frozenset()
    experimental_all: bool = False
    error: bool = False

    def merged(self, other: "Checks") -> "Checks":
        """With what a comment right before an instruction adds."""
        return replace(
            self,
            skip=self.skip | other.skip,
            skip_all=self.skip_all or other.skip_all,
            experimental=self.experimental | other.experimental,
            experimental_all=self.experimental_all or other.experimental_all,
        )

    def wants(self, rule: Rule) -> bool:
        """Whether this rule is to be run."""
        if rule.experimental:
            return self.experimental_all or rule.name in self.experimental
        return not self.skip_all and rule.name not in self.skip


def parse_checks(text: str) -> Checks:
    """Read `skip=A,B;error=true;experimental=all`.

    Raises:
        ValueError: for anything else.
    """
    checks = Checks()
    if not text.strip():
        return checks
    for part in text.strip().split(";", 2):
        key, separator, value = part.partition("=")
        if not separator:
            raise ValueError(f"invalid check option {part!r}: write key=value")
        key, value = key.strip(), value.strip()
        names = frozenset(name.strip() for name in value.split(","))
        if key == "skip":
            checks = replace(checks, skip_all=True) if value == "all" else replace(checks, skip=names)
        elif key == "experimental":
            everything = value == "all"
            checks = replace(checks, experimental_all=True) if everything else replace(checks, experimental=names)
        elif key == "error":
            if value not in _TRUE | _FALSE:
                raise ValueError(f"invalid check option {part!r}: error takes true or false")
            checks = replace(checks, error=value in _TRUE)
        else:
            raise ValueError(f"invalid check option {key!r}: skip, error and experimental are known")
    return checks


_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


@dataclass(slots=True)
class Linter:
    """Collects the warnings of one conversion; `warn` hears each."""

    checks: Checks
    warn: Callable[[Warning], None]
    called: set[str] = field(default_factory=set)

    def run(self, rule: Rule, message: str, start: int, end: int) -> None:
        """Report one finding, if its rule is to be run."""
        if self.checks.wants(rule):
            self.called.add(rule.name)
            self.warn(Warning(rule, message, start, end))

    def within(self, comments: Iterable[str]) -> "Linter":
        """The linter for an instruction with these comments before it."""
        for comment in comments:
            found = parse_directives(comment, comment="").get("check")
            if found is None:
                continue
            try:
                return replace(self, checks=self.checks.merged(parse_checks(found.value.partition(" ")[0])))
            except ValueError:
                return self
        return self
