"""The build context, the Dockerfile and the named contexts: from what the user wrote to folders and attributes.

Source: the attributes are those that buildx sends (build/opt.go, loadInputs).
"""

import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ..wire.reasons import reason
from . import layouts
from .errors import ClientError
from .options import STDIN, BuildOptions

UPLOAD_URL = "http://buildkit-session/"
"""What stands before the name of something that the session hands over itself."""
LARGEST_DOCKERFILE = 2 << 20
"""The most bytes of a Dockerfile behind a URL."""

_HTTP = ("http://", "https://")
_BLOCK = 512
_CAP_CONTEXTS = "moby.buildkit.frontend.contexts+forward"
_CAP_QUERY = "moby.buildkit.frontend.gitquerystring"


@dataclass(slots=True)
class Inputs:
    """What a session offers for reading, and the frontend's attributes that name it."""

    dirs: dict[str, Path] = field(default_factory=dict)
    layouts: dict[str, Path] = field(default_factory=dict)
    attrs: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, Callable[[], BinaryIO]] = field(default_factory=dict)

    def shared_key(self) -> str:
        """The same for every build of one context folder; empty where there is none."""
        folder = self.dirs.get("context")
        return hashlib.sha256(os.fsencode(folder)).hexdigest() if folder is not None else ""


def prepare(options: BuildOptions, cleanup: ExitStack) -> Inputs:
    """Find every context; what comes from standard input or a URL goes to files that `cleanup` removes.

    Raises:
        ClientError: a folder or file is not there, or what is asked for contradicts itself.
    """
    inputs = Inputs()
    caps: set[str] = set()
    if options.context == STDIN:
        _from_stdin(options, inputs, cleanup)
    elif _is_folder(options.context):
        _from_folder(options, inputs, cleanup)
    elif is_remote(options.context):
        _from_remote(options, inputs, cleanup)
        if _has_query(options.context):
            caps.add(_CAP_QUERY)
    else:
        context = Path(options.context)
        raise ClientError(f"build context {options.context!r} is not a folder" + _lost(context))
    if options.file.startswith(_HTTP):
        _dockerfile(_fetch(options.file), inputs, cleanup)
    for name, value in options.named_contexts.items():
        caps.add(_CAP_CONTEXTS)
        _named(name, value, inputs)
        if _has_query(value) and is_remote(value):
            caps.add(f"{_CAP_QUERY}+forward")
    if caps:
        inputs.attrs["frontend.caps"] = ",".join(sorted(caps))
    return inputs


def is_remote(text: str) -> bool:
    """Whether a context is a URL or a git repository."""
    if text.startswith((*_HTTP, "github.com/")):
        return True
    if not re.match(r"(git|ssh)://|[^/:]+@", text):
        return False
    from ..frontend.dockerfile.gitref import GitRefError, parse_git_ref

    try:
        return parse_git_ref(text) is not None
    except GitRefError:
        # A repository, though with something wrong in its options: the frontend says what.
        return True


def _has_query(text: str) -> bool:
    return "?" in text.partition("#")[0]


def _is_folder(text: str) -> bool:
    try:
        return os.path.isdir(text)
    except ValueError:
        return False


def _lost(path: Path) -> str:
    return "" if path.exists() else ": there is no such path"


def _from_folder(options: BuildOptions, inputs: Inputs, cleanup: ExitStack) -> None:
    context = Path(options.context)
    inputs.dirs["context"] = context.absolute()
    if options.file == STDIN:
        _dockerfile(options.stdin.read(), inputs, cleanup)
    elif not options.file.startswith(_HTTP):
        _set_file(Path(options.file) if options.file else context / "Dockerfile", inputs, cleanup)


def _from_remote(options: BuildOptions, inputs: Inputs, cleanup: ExitStack) -> None:
    """A context that the daemon fetches. The Dockerfile is part of it, unless it is named by an absolute path."""
    inputs.attrs["context"] = options.context
    if options.file == STDIN:
        _dockerfile(options.stdin.read(), inputs, cleanup)
    elif os.path.isabs(options.file):
        _set_file(Path(options.file), inputs, cleanup)
        inputs.attrs["dockerfilekey"] = "dockerfile"
    elif not options.file.startswith(_HTTP):
        inputs.attrs["filename"] = options.file or "Dockerfile"


def _set_file(path: Path, inputs: Inputs, cleanup: ExitStack) -> None:
    folder, name = path.parent, path.name
    if name == "Dockerfile" and not path.exists() and (folder / "dockerfile").exists():
        name = "dockerfile"
    if path.is_fifo():
        # A shell's <(command): it can be read once, and has no folder worth naming.
        _dockerfile(path.read_bytes(), inputs, cleanup)
        return
    if not (folder / name).is_file():
        what = "is a folder, not a file" if path.is_dir() else "is not there"
        raise ClientError(f"failed to read the Dockerfile: {path} {what}", "name it with -f FILE")
    if (folder / name).is_symlink() and folder.resolve() not in (real := (folder / name).resolve()).parents:
        # A folder is sent without what its links lead to outside.
        folder, name = real.parent, real.name
    inputs.dirs["dockerfile"] = folder.absolute()
    inputs.attrs["filename"] = name


def _dockerfile(text: bytes, inputs: Inputs, cleanup: ExitStack) -> None:
    """A Dockerfile that is in no folder of the user's; it is used even where the context has one of its own."""
    folder = _temporary("brickyard-dockerfile-", cleanup)
    (folder / "Dockerfile").write_bytes(text)
    inputs.dirs["dockerfile"] = folder
    inputs.attrs["filename"] = "Dockerfile"
    inputs.attrs["dockerfilekey"] = "dockerfile"


def _temporary(prefix: str, cleanup: ExitStack) -> Path:
    return Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix=prefix)))


def _fetch(url: str) -> bytes:
    import httpx

    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=30) as answer:
            answer.raise_for_status()
            data = bytearray()
            for part in answer.iter_bytes():
                data += part
                if len(data) > LARGEST_DOCKERFILE:
                    raise ClientError(f"the Dockerfile {url} is larger than {LARGEST_DOCKERFILE >> 20} MiB")
            return bytes(data)
    except httpx.HTTPStatusError as error:
        raise ClientError(f"failed to read the Dockerfile {url}: {error.response.status_code}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ClientError(f"failed to read the Dockerfile {url}: {reason(error)}") from error


def _from_stdin(options: BuildOptions, inputs: Inputs, cleanup: ExitStack) -> None:
    if options.file == STDIN:
        raise ClientError("standard input cannot be both the build context and the Dockerfile")
    stdin = io.BufferedReader(_Raw(options.stdin), buffer_size=64 * 1024)
    start = stdin.peek(_BLOCK)
    if _is_archive(start):
        _upload(stdin, inputs, cleanup)
        if not options.file.startswith(_HTTP):
            inputs.attrs["filename"] = options.file or "Dockerfile"
        return
    if options.file:
        raise ClientError("ambiguous Dockerfile: standard input is one, and -f names another")
    inputs.dirs["context"] = _temporary("brickyard-context-", cleanup)
    _dockerfile(stdin.read(), inputs, cleanup)


def _upload(stream: BinaryIO, inputs: Inputs, cleanup: ExitStack) -> None:
    """Keep an archive for the solver, which may read it more than once."""
    place = _temporary("brickyard-context-", cleanup) / "context"
    try:
        with place.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
    except OSError as error:
        raise ClientError(f"the build context from standard input cannot be kept: {error.strerror or error}") from error
    url = UPLOAD_URL + uuid.uuid4().hex
    inputs.uploads[url] = lambda: place.open("rb")
    inputs.attrs["context"] = url


class _Raw(io.RawIOBase):
    """Any readable stream as a raw one, so that a buffered reader with `peek` stands over it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _is_archive(start: bytes) -> bool:
    if start.startswith((b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\x00")):
        return True
    if len(start) < _BLOCK:
        return False
    try:
        tarfile.TarInfo.frombuf(start[:_BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _named(name: str, value: str, inputs: Inputs) -> None:
    key = f"context:{name}"
    if value.startswith("docker-image://") or is_remote(value):
        inputs.attrs[key] = value
    elif value.startswith("target:"):
        raise ClientError(f"build context {name}: {value} names a target of a bake file, and there is none")
    elif value.startswith(layouts.PREFIX):
        ref = layouts.resolve(layouts.parse(value))
        store = uuid.uuid4().hex
        inputs.layouts[store] = Path(ref.path).absolute()
        inputs.attrs[key] = str(layouts.LayoutRef(store, ref.tag, ref.digest))
    else:
        folder = Path(os.path.expanduser(value))
        if not folder.is_dir():
            raise ClientError(f"build context {name}: {value!r} is not a folder" + _lost(folder))
        local = f"_{name}" if name in ("context", "dockerfile") else name
        inputs.dirs[local] = folder.absolute()
        inputs.attrs[key] = f"local:{local}"
        inputs.attrs[f"sharedkey:localdir:{name}"] = folder.absolute().resolve().name
