"""What a build asks of its caller: the args, secrets and ssh agents of a target, for `frontend.outline`."""

from dataclasses import dataclass, field

Lines = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ArgInfo:
    """An ARG as declared; `needs` are the args that its default is made from."""

    name: str
    value: str
    description: str
    lines: Lines
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A secret or an ssh agent."""

    name: str
    required: bool
    lines: Lines


@dataclass(slots=True)
class Outline:
    """What one stage names."""

    args: dict[str, ArgInfo] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    secrets: dict[str, Wanted] = field(default_factory=dict)
    ssh: dict[str, Wanted] = field(default_factory=dict)

    def copy(self) -> "Outline":
        """A copy that goes its own way."""
        return Outline(dict(self.args), set(self.used), dict(self.secrets), dict(self.ssh))

    def all_used(self) -> set[str]:
        """The args that are used, and those that they need."""
        found: set[str] = set()
        pending = list(self.used)
        while pending:
            name = pending.pop()
            if name in found:
                continue
            found.add(name)
            if name in self.args:
                pending.extend(self.args[name].needs)
        return found
