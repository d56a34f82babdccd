"""Flags as docker reads them: `--flag value`, `--flag=value`, `-fvalue`, `--switch=false`, anywhere on the line."""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["switch", "text", "list"]


class UsageError(Exception):
    """A command line that says something the command does not understand; `hint` says what was perhaps meant."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: a switch, a text (the last one counts) or a list of texts.

    `implied` is the value of a text flag that is written without one.
    """

    name: str
    help: str
    kind: Kind = "text"
    short: str = ""
    metavar: str = "string"
    implied: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """What a command accepts; `arguments` is shown in its usage line and holds as many words as it takes."""

    name: str
    summary: str
    flags: tuple[Flag, ...] = ()
    arguments: str = ""
    required: int = 0
    most: int = 0
    notes: str = ""
    hidden: tuple[Flag, ...] = ()
    """Flags that are read and not shown: for the sake of command lines that were written for other tools."""


@dataclass(slots=True)
class Parsed:
    """The values of a command line."""

    arguments: list[str] = field(default_factory=list)
    switches: dict[str, bool] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)

    def on(self, name: str) -> bool:
        """Whether a switch is set."""
        return self.switches.get(name, False)

    def text(self, name: str, default: str = "") -> str:
        """The value of a text flag."""
        given = self.values.get(name)
        return given[-1] if given else default

    def texts(self, name: str) -> list[str]:
        """The values of a list flag, in order."""
        return self.values.get(name, [])

    def given(self, name: str) -> bool:
        """Whether the flag was written at all."""
        return name in self.values or name in self.switches


HELP = Flag("help", "Show this help", "switch", "h")


def closest(word: str, known: list[str]) -> str:
    """The known word that `word` is probably a slip of, empty where none is near."""
    # Imported only here: most command lines have no slip, and difflib costs more than all of the parsing.
    from difflib import get_close_matches

    found = get_close_matches(word, known, 1, 0.6)
    return found[0] if found else ""


def parse(command: Command, words: list[str]) -> Parsed:
    """Read a command line.

    Raises:
        UsageError: for an unknown flag, a missing value, too many or too few arguments.
    """
    parsed = Parsed()
    flags = (*command.flags, *command.hidden, HELP)
    by_name = {flag.name: flag for flag in flags}
    by_short = {flag.short: flag for flag in flags if flag.short}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            parsed.arguments += rest
            break
        if word.startswith("--"):
            _long(command, by_name, word, rest, parsed)
        elif word.startswith("-") and word != "-":
            _shorts(command, by_short, word, rest, parsed)
        else:
            parsed.arguments.append(word)
    if not parsed.on("help"):
        _count(command, parsed)
    return parsed


def _long(command: Command, flags: dict[str, Flag], word: str, rest: list[str], parsed: Parsed) -> None:
    name, equals, value = word[2:].partition("=")
    flag = flags.get(name)
    if flag is None:
        near = closest(name, [flag.name for flag in (*command.flags, HELP)])
        raise UsageError(f"unknown flag: --{name}", f"did you mean --{near}?" if near else "")
    if flag.kind == "switch":
        parsed.switches[flag.name] = _truth(flag, value) if equals else True
    elif equals:
        parsed.values.setdefault(flag.name, []).append(value)
    elif flag.implied is not None:
        parsed.values.setdefault(flag.name, []).append(flag.implied)
    elif rest:
        parsed.values.setdefault(flag.name, []).append(rest.pop(0))
    else:
        raise UsageError(f"flag needs a value: --{name}")


def _shorts(command: Command, flags: dict[str, Flag], word: str, rest: list[str], parsed: Parsed) -> None:
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        flag = flags.get(letter)
        if flag is None:
            raise UsageError(f"unknown flag: -{letter}" + (f" in {word}" if len(word) > 2 else ""))
        if flag.kind == "switch":
            if letters.startswith("="):
                parsed.switches[flag.name] = _truth(flag, letters[1:])
                return
            parsed.switches[flag.name] = True
            continue
        if not letters and not rest:
            raise UsageError(f"flag needs a value: -{letter}")
        value = letters.removeprefix("=") if letters else rest.pop(0)
        parsed.values.setdefault(flag.name, []).append(value)
        return


def _truth(flag: Flag, value: str) -> bool:
    truth = boolean(value)
    if truth is None:
        raise UsageError(f"--{flag.name}={value}: write true or false")
    return truth


def boolean(value: str) -> bool | None:
    """A truth value in the forms that Go's `strconv.ParseBool` reads, None for any other text."""
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    return None


def _count(command: Command, parsed: Parsed) -> None:
    count = len(parsed.arguments)
    if count < command.required:
        raise UsageError(f"brickyard {command.name} needs {command.arguments}")
    if count > command.most:
        extra = parsed.arguments[command.most]
        raise UsageError(f"brickyard {command.name}: unexpected argument {extra!r}")


def usage(command: Command) -> str:
    """The help text of a command."""
    first, _, rest = command.arguments.partition(" ")
    # A word that stands for itself is part of the command's name.
    named = first.isalpha() and first.islower()
    head = [command.name, first if named else "", "[OPTIONS]" if command.flags else ""]
    line = " ".join(filter(None, [*head, rest if named else command.arguments]))
    lines = [f"Usage:  brickyard {line}", "", command.summary]
    if command.notes:
        lines += ["", command.notes.strip("\n")]
    rows = [(_signature(flag), flag.help) for flag in sorted((*command.flags, HELP), key=lambda flag: flag.name)]
    width = max(len(left) for left, _ in rows)
    lines += ["", "Options:"]
    lines += [f"  {left:<{width}}   {right}" for left, right in rows]
    return "\n".join(lines)


def _signature(flag: Flag) -> str:
    lead = f"-{flag.short}, " if flag.short else "    "
    if flag.kind == "switch":
        return f"{lead}--{flag.name}"
    tail = f"[={flag.metavar}]" if flag.implied is not None else f" {flag.metavar}"
    return f"{lead}--{flag.name}{tail}"
