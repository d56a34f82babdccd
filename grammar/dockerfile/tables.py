"""The LALR tables of dockerfile.lark: worked out by Lark once, and then read from where they are kept.

Importing Lark and working the tables out takes longer than most builds need for all of their Dockerfile, so neither
happens once they are kept. The frontend image has them as a module.
"""

import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

GRAMMAR = os.path.join(os.path.dirname(__file__), "dockerfile.lark")
FORM = 1
"""Changes with the form of what is kept."""
END = "$END"


class Tables(NamedTuple):
    """An automaton.

    `states` has for each state what a symbol does: a number is the next state, a negative one the complement of the
    number of a rule to reduce. `rules` has for each rule the symbol it makes and how many it makes it of.
    """

    start: int
    end: int
    states: list[dict[str, int]]
    rules: list[tuple[str, int]]


class UnexpectedSymbol(Exception):
    """A symbol that may not stand where it does."""


class _Inline(list[Any]):
    """What a rule whose name begins with `_` is made of: it goes into the rule around it."""

    __slots__ = ()


def run(tables: Tables, symbols: Iterable[Any], build: Any) -> Any:
    """Parse: what the methods of `build`, named as the rules, make of their children.

    Raises:
        UnexpectedSymbol: for symbols that the grammar does not allow.
    """
    calls: list[Callable[[list[Any]], Any]] = [
        _Inline if name[0] == "_" else getattr(build, name) for name, _ in tables.rules
    ]
    states, rules, end = tables.states, tables.rules, tables.end
    stack = [tables.start]
    values: list[Any] = []

    def reduce(number: int) -> None:
        name, size = rules[number]
        children: list[Any] = []
        if size:
            # Lists of any length grow by one item at a time: the first child is such a list, and goes on.
            first = values[-size]
            children = first if type(first) is _Inline else [first]
            for child in values[len(values) - size + 1 :]:
                if type(child) is _Inline:
                    children += child
                else:
                    children.append(child)
            del values[-size:]
            del stack[-size:]
        call = calls[number]
        if type(children) is not _Inline:
            values.append(call(children))
        else:
            values.append(children if call is _Inline else call(list(children)))
        stack.append(states[stack[-1]][name])

    for symbol in symbols:
        kind = symbol.type
        while (step := states[stack[-1]].get(kind)) is not None and step < 0:
            reduce(~step)
        if step is None:
            raise UnexpectedSymbol(str(symbol))
        stack.append(step)
        values.append(symbol)
    while stack[-1] != end:
        step = states[stack[-1]].get(END)
        if step is None or step >= 0:
            raise UnexpectedSymbol("the end of the file")
        reduce(~step)
    return values[-1]


@cache
def load() -> Tables:
    """The tables, from the image or the user's cache folder where they are there."""
    try:
        from ._tables import TABLES  # type: ignore[import-not-found]

        return Tables(*TABLES)
    except ImportError:
        return _from_cache()


def _from_cache() -> Tables:
    import hashlib

    with open(GRAMMAR, "rb") as file:
        key = hashlib.sha256(b"%d\0%s" % (FORM, file.read())).hexdigest()[:32]
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = os.path.join(folder, "brickyard", "grammar", f"{key}.json")
    found = _read(path)
    if found is None:
        found = make()
        _keep(found, path)
    return found


def _read(path: str) -> Tables | None:
    """What is kept, unless another user could have written it."""
    import json

    try:
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            if stat.st_uid != os.geteuid() or stat.st_mode & 0o022:
                return None
            start, end, states, rules = json.load(file)
        return Tables(start, end, states, [(name, size) for name, size in rules])
    except (OSError, ValueError, TypeError):
        return None


def _keep(tables: Tables, path: str) -> None:
    import json

    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "w") as file:
            json.dump(tables, file)
        os.replace(temporary, path)
    except OSError:
        # Without a cache the next run works them out again.
        return


def make() -> Tables:
    """Work the tables out with Lark."""
    import io
    import pickle

    from lark import Lark

    with open(GRAMMAR, encoding="utf-8") as file:
        parser = Lark(file.read(), parser="lalr", lexer="basic", maybe_placeholders=False)
    saved = io.BytesIO()
    parser.save(saved)
    stored = pickle.loads(saved.getvalue())
    automaton, memo = stored["data"]["parser"]["parser"], stored["memo"]
    names = automaton["tokens"]
    numbers: dict[int, int] = {}
    rules: list[tuple[str, int]] = []
    for key, entry in memo.items():
        if entry["__type__"] == "Rule":
            numbers[key] = len(rules)
            rules.append((entry["origin"]["name"], len(entry["expansion"])))
    # Lark numbers states as sets happen to be ordered; here they are numbered as they are reached.
    order = {automaton["start_states"]["start"]: 0}
    states: list[dict[str, int]] = []
    while len(states) < len(order):
        state = list(order)[len(states)]
        steps = sorted(((names[s], *step) for s, step in automaton["states"][state].items()), key=lambda step: step[0])
        states.append(
            {name: ~numbers[to["@"]] if kind else order.setdefault(to, len(order)) for name, kind, to in steps}
        )
    return Tables(0, order[automaton["end_states"]["start"]], states, rules)
