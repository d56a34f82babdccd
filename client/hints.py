"""What a user can do about an error of a solve that the solver, which doesn't see the user's folders, can't tell."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..wire.pb import errdefs_pb2
from .inputs import Inputs

_MISSING = (
    re.compile(r'failed to calculate checksum of ref \S+: "(/[^"]*)": not found$'),
    re.compile(r"^lstat (/\S*): no such file or directory$"),
)
_FROM = re.compile(r"(?:--|[=,])from=(\S+?)(?=[\s,]|$)")


def add_hint(error: BaseException, inputs: Inputs) -> None:
    """Give an error a hint, where it has none and there is one."""
    if getattr(error, "hint", None) != "":
        return
    found = next((match for form in _MISSING if (match := form.search(str(error)))), None)
    sources: Sequence[errdefs_pb2.Source] = getattr(error, "sources", ())
    if found is None or not sources:
        return
    setattr(error, "hint", _missing(found[1], _text(sources[0]), inputs.dirs.get("context")))  # noqa: B010


def _text(source: errdefs_pb2.Source) -> str:
    lines = source.info.data.decode(errors="replace").split("\n")
    return "\n".join(line for one in source.ranges for line in lines[max(0, one.start.line - 1) : one.end.line])


def _missing(path: str, text: str, context: Path | None) -> str:
    if names := _FROM.findall(text):
        stages = dict.fromkeys(f"stage {name}" if name.isdecimal() else name for name in names)
        return f"there is no {path} in {' or '.join(stages)}"
    name = path.removeprefix("/")
    if context is None:
        return f"there is no {name} in the build context"
    if os.path.lexists(context / name):
        return f"{name} is in the context, but the ignore file leaves it out"
    from difflib import get_close_matches

    folder, base = os.path.split(name)
    try:
        near = get_close_matches(base, os.listdir(context / folder), 1, 0.7)
    except OSError:
        near = []
    meant = f": did you mean {os.path.join(folder, near[0])}?" if near else f" {context}"
    return f"there is no {name} in the build context{meant}"
