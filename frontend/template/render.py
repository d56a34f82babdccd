"""Jinja2 templates of Dockerfiles: rendered in a sandbox, with a way back from each line to where it came from.

The way back are marks that are put into the literal text of a template before it is compiled, one at the start of every
line, and taken out of the result. Text that a template may look at itself, as in a macro or a `set` block, has none.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateNotFound, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.loaders import BaseLoader
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment

from ...grammar.errors import Location, SourceError

MOST_STEPS = 1_000_000
"""How often all loops of a template may go round together."""
LARGEST = 16 << 20
"""The most characters that a template makes, as a whole and in one value."""
_DIRECTIVE = re.compile(r"#\s*brickyard\s*:\s*template\s*\Z")
_MARK = re.compile(r"\0([^\0]*)\0(\d+)\0")
_WIDE = re.compile(r"\d{6}")
_OPAQUE = frozenset({"macro", "set", "filter", "call"})
_KEPT_FILTERS = frozenset(
    """abs batch capitalize count d default dictsort first float format groupby indent int items join last length list
    lower map max min reject rejectattr replace reverse round select selectattr slice sort string sum title
    tojson trim truncate unique upper wordcount""".split()
)  # fmt: skip

Read = Callable[[str], str | None]
"""Gives a file of the context by its path, None where it is not there."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a template; `file` is empty for the one that was rendered, else the path of an included one."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered template and, for each of its lines, where that comes from.

    `lines` are lines of the template itself: for an included file the line that the text around it was last at.
    """

    text: str
    places: tuple[Place, ...]
    lines: tuple[int, ...]

    def line(self, number: int) -> int:
        """The template's line of a line of the result, both from 1."""
        return self.lines[min(max(number, 1), len(self.lines)) - 1] if self.lines else 1

    def located(self, error: SourceError) -> SourceError:
        """An error in the result as one in the template."""
        where = error.location
        if where is None:
            return error
        place = self.places[min(where.start, len(self.places)) - 1] if self.places else Place("", 1)
        message = f"{place.file}:{place.line}: {error.message}" if place.file else error.message
        return SourceError(message, Location(self.line(where.start), self.line(where.end)), error.hint)


def is_template(text: str, filename: str) -> bool:
    """Whether a Dockerfile is a template: by a `.j2` name, or a `# brickyard: template` line in its first comments."""
    if filename.endswith((".j2", ".jinja2")):
        return True
    for line in text.removeprefix("\ufeff").splitlines():
        if not line.lstrip().startswith("#"):
            return False
        if _DIRECTIVE.match(line.strip()):
            return True
    return False


def render(text: str, variables: Mapping[str, str], read: Read) -> Rendered:
    """Render a template.

    Args:
        text: the template.
        variables: the build args.
        read: gives the files that it includes, imports or extends.

    Raises:
        SourceError: for a syntax error, an unknown variable, a file that is not there, or one that never ends.
    """
    if "\0" in text:
        raise SourceError("a template can't hold NUL characters", Location(text[: text.index("\0")].count("\n") + 1, 1))
    environment = _Environment(read)
    # Line feeds as Jinja makes them, so that the lines of both are the same.
    try:
        template = environment.from_string(text.removeprefix("\ufeff"))
        return _read_back(_joined(template.generate(variables)))
    except TemplateSyntaxError as error:
        raise _at(error, error.lineno, error.name) from None
    except (TemplateError, SecurityError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as error:
        line, name = _line_of(error)
        raise _at(error, line, name) from None
    except RecursionError:
        raise SourceError("the template calls or includes itself without an end") from None


def _at(error: Exception, line: int, name: str | None) -> SourceError:
    message = f"the file {error.name!r} is not in the context" if isinstance(error, TemplateNotFound) else str(error)
    hint = ""
    if "is undefined" in message:
        hint = "give it with --build-arg, or write a default: {{ name | default('value') }}"
    if name:
        return SourceError(f"{name}:{line}: {message}", None, hint)
    return SourceError(message, Location(line, line) if line else None, hint)


def _line_of(error: Exception) -> tuple[int, str | None]:
    """Where in a template an error was raised: the last of its frames that is a template's."""
    found, frame = (0, None), error.__traceback__
    while frame is not None:
        name = frame.tb_frame.f_globals.get("name")
        if "__jinja_template__" in frame.tb_frame.f_globals or frame.tb_frame.f_code.co_filename == "<template>":
            found = (frame.tb_lineno, name)
        frame = frame.tb_next
    return found


def _joined(parts: Iterable[str]) -> str:
    out, size = [], 0
    for part in parts:
        size += len(part)
        if size > LARGEST:
            raise SourceError(f"the template makes more than {LARGEST >> 20} MiB of text")
        out.append(part)
    return "".join(out)


def _read_back(marked: str) -> Rendered:
    out: list[str] = []
    places: list[Place] = []
    lines: list[int] = []
    place, line = Place("", 1), 1
    for raw in marked.split("\n"):
        # Text, and then by threes the file, the line and the text after a mark.
        parts = _MARK.split(raw)
        found = bool(parts[0].strip())
        at, at_line = place, line
        for file, number, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            place = Place(file, int(number))
            line = line if file else place.line
            if not found:
                # A line is where its first text is.
                at, at_line = place, line
                found = bool(text.strip())
        places.append(at)
        lines.append(at_line)
        out.append("".join(parts[::3]))
    return Rendered("\n".join(out), tuple(places), tuple(lines))


class _Marks(Extension):
    """Puts a mark before the text of every line that is literal, and before every value."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        depth = 0
        previous: list[str] = ["", ""]
        pending: Token | None = None
        for token in stream:
            if pending is not None:
                if token.type == "block_end" and previous[0] == "set":
                    depth += 1
                if token.type in ("assign", "block_end"):
                    pending = None
            if token.type == "name" and previous[1] == "block_begin":
                previous[0] = token.value
                if token.value == "set":
                    pending = token
                elif token.value in _OPAQUE:
                    depth += 1
                elif token.value.startswith("end") and token.value.removeprefix("end") in _OPAQUE:
                    depth -= 1
            previous[1] = token.type
            if token.type == "data" and not depth:
                yield Token(token.lineno, "data", _marked(token.value, token.lineno, stream.name or ""))
            elif token.type == "variable_begin" and not depth:
                yield Token(token.lineno, "data", _marked("", token.lineno, stream.name or ""))
                yield token
            else:
                yield token


def _marked(text: str, first: int, name: str) -> str:
    lines = text.split("\n")
    return "\n".join(f"\0{name}\0{number}\0{line}" for number, line in enumerate(lines, first))


class _Loader(BaseLoader):
    def __init__(self, read: Read) -> None:
        self._read = read

    def get_source(self, environment: Any, template: str) -> tuple[str, str | None, Callable[[], bool] | None]:
        text = self._read(template)
        if text is None or "\0" in text:
            raise TemplateNotFound(template)
        return text, None, lambda: True


class _Environment(SandboxedEnvironment):
    """A sandbox that also counts: no template takes more than so many steps, or makes a value that fills the memory."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, read: Read) -> None:
        super().__init__(
            undefined=StrictUndefined,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
            loader=_Loader(read),
            extensions=[_Marks],
            cache_size=0,
        )
        self._steps = 0
        self.filters = {key: _bounded(value) for key, value in self.filters.items() if key in _KEPT_FILTERS}
        self.filters["_counted"] = self._counted
        self.globals = {key: value for key, value in self.globals.items() if key in ("range", "dict", "namespace")}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_counted", [], [], None, None, lineno=loop.lineno)
        return tree

    def _counted(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise SecurityError(f"the loops of the template go round more than {MOST_STEPS} times")
            yield value

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse what would make a huge value."""
        if operator == "**" and not (_number(left) and _number(right) and abs(left) < 10**6 and abs(right) < 64):
            raise SecurityError("** takes numbers below a million and powers below 64")
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if hasattr(text, "__len__") and _number(times) and len(text) * times > LARGEST:
                    raise SecurityError("the value would be too large")
        if (
            operator == "+"
            and hasattr(left, "__len__")
            and hasattr(right, "__len__")
            and len(left) + len(right) > LARGEST
        ):
            raise SecurityError("the value would be too large")
        if operator == "%" and isinstance(left, str) and _WIDE.search(left):
            raise SecurityError("the value would be too large")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Refuse what would make a huge value."""
        if isinstance(owner := getattr(obj, "__self__", None), str):
            _check_sizes((owner, *args, *kwargs.values()))
        return super().call(context, obj, *args, **kwargs)


def _number(value: Any) -> bool:
    return isinstance(value, int | float)


def _check_sizes(values: Iterable[Any]) -> None:
    """Refuse numbers, and widths in format strings, that make a method or filter fill the memory."""
    for value in values:
        if _number(value) and abs(value) > MOST_STEPS:
            raise SecurityError("the value would be too large")
        if isinstance(value, str) and ("{" in value or "%" in value) and _WIDE.search(value):
            raise SecurityError("the value would be too large")


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _check_sizes((*args, *kwargs.values()))
        return function(*args, **kwargs)

    return bounded
