"""Dockerfile text to tree, by the LALR grammar in dockerfile.lark."""

import hashlib
import io
import os
import pickle
from functools import cache
from pathlib import Path
from typing import Any, cast

from lark import Lark, Transformer, UnexpectedInput, __version__

from .errors import DockerfileSyntaxError, at
from .lexer import DockerfileLexer, Line, Source, split_lines
from .tree import Dockerfile, Flag, Heredoc, Instruction, Pair, Position, Span

GRAMMAR = Path(__file__).with_name("dockerfile.lark")


class _Array(tuple[str, ...]):
    __slots__ = ()


class _Build(Transformer[Any, Any]):
    """Makes the nodes while the parser reduces."""

    def start(self, children: list[Any]) -> tuple[Instruction, ...]:
        return tuple(children)

    def array(self, children: list[Any]) -> _Array:
        return _Array(token.value for token in children[1:-1])

    def pair(self, children: list[Any]) -> Pair:
        return Pair(children[0].value, children[2].value, True)

    def old_pair(self, children: list[Any]) -> Pair:
        return Pair(children[0].value, children[1].value, False)

    def trigger(self, children: list[Any]) -> list[Any]:
        return children

    def instruction(self, children: list[Any]) -> Instruction:
        line: Line = children[-1].value
        return _node(children[:-1], line)


def _node(children: list[Any], line: Line) -> Instruction:
    keyword, original, begin = children[0].value
    flags: list[Flag] = []
    words: list[str] = []
    pairs: list[Pair] = []
    heredocs: list[Heredoc] = []
    trigger = None
    json = False
    for child in children[1:]:
        if isinstance(child, _Array):
            words.extend(child)
            json = True
        elif isinstance(child, Pair):
            pairs.append(child)
        elif isinstance(child, list):
            trigger = _node(child, line)
        elif child.type == "FLAG":
            flags.append(child.value)
        elif child.type == "HEREDOC":
            heredocs.append(child.value)
        else:
            words.append(child.value)
    last = line.pieces[-1]
    width = heredocs[-1].span.end.column if heredocs else last[2] + len(line.text) - last[0]
    return Instruction(
        keyword=keyword,
        name=keyword.upper(),
        flags=tuple(flags),
        words=tuple(words),
        json=json,
        pairs=tuple(pairs),
        heredocs=tuple(heredocs),
        trigger=trigger,
        original=original,
        comments=line.comments,
        empty_continuation=line.empty_continuation,
        span=Span(Position(line.start, begin.column), Position(line.end, width)),
    )


@cache
def _parser() -> Lark:
    """The parser, from tables kept in the user's cache folder where that is possible."""
    text = GRAMMAR.read_text(encoding="utf-8")
    key = hashlib.sha256(f"{__version__}\0{text}".encode()).hexdigest()[:32]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brickyard" / "grammar"
    path = folder / f"{key}.tables"
    options: dict[str, Any] = {"lexer": DockerfileLexer, "transformer": _Build()}
    stored = _stored(path)
    if stored is not None:
        try:
            return cast(Lark, Lark._load_from_dict(stored["data"], stored["memo"], **options))  # type: ignore[no-untyped-call]
        except (AssertionError, KeyError, TypeError, AttributeError, ValueError):
            path.unlink(missing_ok=True)
    parser = Lark(text, parser="lalr", maybe_placeholders=False, **options)
    _keep(parser, path)
    return parser


def _stored(path: Path) -> dict[str, Any] | None:
    """The tables as pickled, unless others than this user could have written them."""
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            if stat.st_uid != os.geteuid() or stat.st_mode & 0o022:
                return None
            return cast(dict[str, Any], pickle.load(file))
    except (OSError, pickle.PickleError, EOFError, AttributeError, ImportError, IndexError):
        return None


def _keep(parser: Lark, path: Path) -> None:
    tables = io.BytesIO()
    parser.save(tables, exclude_options=("lexer", "transformer"))
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(tables.getvalue())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)


def parse(text: str) -> Dockerfile:
    """The tree of a Dockerfile.

    Raises:
        DockerfileSyntaxError: with the place and, where there is one, the fix.
    """
    source = Source(split_lines(text))
    try:
        instructions = cast(tuple[Instruction, ...], _parser().parse(cast(Any, source)))
    except UnexpectedInput as error:
        raise at(f"unexpected {getattr(error, 'token', 'input')}", max(1, source.at)) from None
    return Dockerfile(text, source.dialect.escape, source.directives, instructions)


def parse_instruction(text: str) -> Instruction:
    """The one instruction that an ONBUILD trigger is.

    Raises:
        DockerfileSyntaxError: where the text is none, or more than one.
    """
    instructions = parse(text).instructions
    if len(instructions) != 1:
        raise DockerfileSyntaxError("an ONBUILD trigger must be a single instruction")
    return instructions[0]
