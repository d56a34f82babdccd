"""Questions about a file instead of a build: `docker buildx build --call outline`, `--call targets`, `--check`.

The answers are metadata of the result, for programs (`result.json`) and for people (`result.txt`), in the forms that
buildx prints (BuildKit's frontend/subrequests).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.json_format import MessageToDict

from ...grammar.errors import SourceError
from ...llb.bridge import BridgeError
from ...llb.marshal import SourceFile, digest_of
from ...wire.errors import make_status, to_json
from ...wire.pb import errdefs_pb2, gateway_pb2, ops_pb2
from ..gateway.client import UNIMPLEMENTED
from ..gateway.status import line_ranges, text_of
from ..lint.linter import Warning
from .command import Stage
from .convert import convert
from .descriptions import doc_comment
from .gojson import dumps
from .options import ConvertOptions, Resolver
from .outline import Outline, Wanted
from .reading import read_stages


@dataclass(frozen=True, slots=True)
class Question:
    """One file and what is asked of it."""

    text: str
    file: SourceFile
    options: ConvertOptions
    resolver: Resolver


@dataclass(frozen=True, slots=True)
class Request:
    """One kind of question."""

    name: str
    version: str
    description: str
    handler: Callable[[Question], gateway_pb2.Result]
    opts: Sequence[tuple[str, str]] | None = ()
    metadata: Sequence[str] = ("result.json", "result.txt")
    listed: bool = True

    def to_dict(self) -> dict[str, Any]:
        """As `frontend.subrequests.describe` lists it."""
        named = [{"name": name, "description": text} for name, text in self.opts or ()]
        return {
            "name": self.name,
            "version": self.version,
            "type": "rpc",
            "description": self.description,
            "opts": None if self.opts is None else named,
            "inputs": None,
            "metadata": [{"name": name, "description": ""} for name in self.metadata],
            "refs": None,
        }


def answer(name: str, text: str, file: SourceFile, options: ConvertOptions, resolver: Resolver) -> gateway_pb2.Result:
    """The answer to the question of this name.

    Raises:
        BridgeError: for a question that is not known.
        SourceError: where the file can't be read for it.
    """
    for request in REQUESTS:
        if request.name == name:
            result = request.handler(Question(text, file, options, resolver))
            result.metadata["version"] = request.version.encode()
            return result
    message = f"unsupported request {name}"
    status = make_status(UNIMPLEMENTED, message, [errdefs_pb2.Subrequest(name=name)])
    raise BridgeError(message, UNIMPLEMENTED, status.SerializeToString())


def _result(document: Any, text: str | None = None) -> gateway_pb2.Result:
    result = gateway_pb2.Result()
    result.metadata["result.json"] = dumps(document, indent="  ")
    if text is not None:
        result.metadata["result.txt"] = text.encode()
    return result


def table(rows: Iterable[Sequence[str]], padding: int) -> str:
    """Rows in columns, as Go's tabwriter sets them: the last cell of a row has no width of its own."""
    lines = list(rows)
    columns = max(map(len, lines)) - 1
    widths = [max((len(row[n]) for row in lines if n < len(row) - 1), default=0) + padding for n in range(columns)]
    out = []
    for row in lines:
        cells = [cell.ljust(widths[n]) for n, cell in enumerate(row[:-1])]
        out.append("".join(cells) + row[-1] + "\n")
    return "".join(out)


def _location(lines: tuple[int, int]) -> dict[str, Any]:
    return to_json(ops_pb2.Location(ranges=line_ranges(*lines)))


def _describe(question: Question) -> gateway_pb2.Result:
    listed = [request for request in REQUESTS if request.listed]
    rows = [("NAME", "VERSION", "DESCRIPTION")]
    rows += [(r.name.removeprefix("frontend."), r.version, r.description) for r in listed]
    return _result([request.to_dict() for request in listed], table(rows, 1))


def _targets(question: Question) -> gateway_pb2.Result:
    stages = read_stages(question.text, question.options.lines)
    targets = []
    rows = [("TARGET", "DESCRIPTION")]
    for number, stage in enumerate(stages, 1):
        text = doc_comment(stage.node.comments, stage.stage)
        last = number == len(stages)
        name = " ".join(part for part in (stage.stage, "(default)" if last else "") if part)
        rows.append((name, text))
        lines = (stage.node.span.start.line, stage.node.span.end.line)
        target: dict[str, Any] = {"name": stage.stage, "default": last, "description": text, "base": stage.base}
        target |= {"platform": stage.platform, "location": _location(lines)}
        targets.append({key: value for key, value in target.items() if value})
    return _result({"targets": targets, "sources": [_base64(question.file.data)]}, table(rows, 1))


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def _outline(question: Question) -> gateway_pb2.Result:
    target = convert(question.text, question.options, question.resolver, question.file).target
    assert target is not None
    args = _collect(target, lambda outline: {k: v for k, v in outline.args.items() if k in outline.all_used()})
    secrets = _collect(target, lambda outline: outline.secrets)
    ssh = _collect(target, lambda outline: outline.ssh)
    description = doc_comment(target.node.comments, target.name) if target.node is not None else ""
    document: dict[str, Any] = {}
    text = ""
    if target.name or description:
        rows = [("TARGET:", target.name or "(default)")] + ([("DESCRIPTION:", description)] if description else [])
        text += table(rows, 1) + "\n"
        document |= {key: value for key, value in (("name", target.name), ("description", description)) if value}
    if args:
        document["args"] = [
            {
                "name": arg.name,
                **({"description": arg.description} if arg.description else {}),
                **({"value": arg.value} if arg.value else {}),
                "location": _location(arg.lines),
            }
            for arg in args
        ]
        rows3 = [("BUILD ARG", "VALUE", "DESCRIPTION"), *((a.name, a.value, a.description) for a in args)]
        text += table(rows3, 3) + "\n"
    for key, title, wanted in (("secrets", "SECRET", secrets), ("ssh", "SSH", ssh)):
        if wanted:
            document[key] = [_wanted(entry) for entry in wanted]
            rows = [(title, "REQUIRED"), *((entry.name, "true" if entry.required else "") for entry in wanted)]
            text += table(rows, 3) + "\n"
    document["sources"] = [_base64(question.file.data)]
    return _result(document, text)


def _wanted(entry: Wanted) -> dict[str, Any]:
    required = {"required": True} if entry.required else {}
    return {"name": entry.name, **required, "location": _location(entry.lines)}


def _collect(target: Stage, of: Callable[[Outline], Any]) -> list[Any]:
    """What a stage, its bases and the stages that it reads name, each name once, in the order of the file."""
    found: dict[str, Any] = {}
    seen: set[Stage] = set()
    pending = [target]
    while pending:
        stage = pending.pop(0)
        if stage in seen:
            continue
        seen.add(stage)
        for key, value in of(stage.outline).items():
            found.setdefault(key, value)
        pending[:0] = [*([stage.base] if stage.base is not None else []), *stage.dependencies]
    return sorted(found.values(), key=lambda entry: entry.lines[0])


def _lint(question: Question) -> gateway_pb2.Result:
    warnings: list[Warning] = []
    options = replace(question.options, warn=warnings.append, all_stages=not question.options.target)
    failure = None
    try:
        convert(question.text, options, question.resolver, question.file)
    except (SourceError, BridgeError) as error:
        failure = error
    document: dict[str, Any] = {
        "warnings": [_warning(warning) for warning in warnings] if warnings else None,
        "sources": [to_json(question.file.to_pb())],
    }
    if failure is not None:
        location = getattr(failure, "location", None)
        place = _location((location.start, location.end)) if location is not None else {}
        message = text_of(failure) if isinstance(failure, SourceError) else str(failure)
        document["buildError"] = {"message": message, "location": place}
    shown = sorted(warnings, key=lambda warning: warning.start)
    result = _result(document, "".join(_warning_text(warning, question.file) for warning in shown))
    result.metadata["result.statuscode"] = b"1" if warnings or failure is not None else b"0"
    return result


def _warning(warning: Warning) -> dict[str, Any]:
    url = {"url": warning.rule.url} if warning.rule.url else {}
    return {
        "ruleName": warning.rule.name,
        "description": warning.rule.description,
        **url,
        "detail": warning.message,
        "location": _location((warning.start, warning.end)) if warning.start > 0 else {},
    }


def _warning_text(warning: Warning, file: SourceFile) -> str:
    head = f"\nWARNING: {warning.rule.name}" + (f" - {warning.rule.url}" if warning.rule.url else "")
    return f"{head}\n{warning.message}\n{source_excerpt(file, warning.start, warning.end)}"


def source_excerpt(file: SourceFile, first: int, last: int) -> str:
    """Lines of the file with some around them, as BuildKit's clients print a place."""
    lines = file.data.decode(errors="replace").split("\n")
    if not 1 <= first <= len(lines):
        return ""
    last = max(first, min(last, len(lines)))
    start, end = first, last
    wanted, added = (4 if start == end else 2), 0
    while added < wanted:
        if start > 1:
            start -= 1
            added += 1
        if end != len(lines):
            end += 1
            added += 1
        added += 1
    rule = "-" * 20
    shown = [f" {n:3d} | {'>>>' if first <= n <= last else '   '} {lines[n - 1]}" for n in range(start, end + 1)]
    return "\n".join([f"{file.filename}:{first}", rule, *shown, rule, ""])


def _convert_llb(question: Question) -> gateway_pb2.Result:
    definition = convert(question.text, question.options, question.resolver, question.file).definition()
    message = definition.to_pb()
    document = {
        "def": {
            digest_of(op): MessageToDict(ops_pb2.Op.FromString(op)) for op in sorted(definition.ops, key=digest_of)
        },
        "metadata": {digest: to_json(message.metadata[digest]) for digest in sorted(message.metadata)},
        "source": MessageToDict(message.Source),
    }
    return _result(document)


REQUESTS = (
    Request(
        "frontend.outline",
        "1.0.0",
        "List all parameters current build target supports",
        _outline,
        [("target", "Target build stage")],
    ),
    Request("frontend.targets", "1.0.0", "List all targets current build supports", _targets),
    Request("frontend.subrequests.describe", "1.0.0", "List available subrequest types", _describe, None),
    Request(
        "frontend.lint",
        "1.0.0",
        "Lint a Dockerfile",
        _lint,
        (),
        ("result.json", "result.txt", "result.statuscode"),
        False,
    ),
    Request("frontend.convertllb", "0.1.0", "Convert Dockerfile to LLB", _convert_llb, (), ("result.json",), False),
)
"""Every question. As BuildKit does, `describe` lists those for people who look for what they can ask."""
