"""Where the Dockerfile, the ignore file and the build context come from (BuildKit's frontend/dockerui).

A context is a folder of the client's, a git repository, an http archive or single file, or a definition that the
client gave as an input. A Dockerfile comes from the client's own folder for it unless the context is remote.
"""

import posixpath
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...grammar.errors import SourceError
from ...llb import caps
from ...llb.bridge import BridgeError
from ...llb.caps import ALL, CapSet
from ...llb.graph import Output
from ...llb.load import DefinitionError, given
from ...llb.marshal import Definition, SourceFile, marshal
from ...llb.ops import Copy, SourceOp
from ...llb.state import CopyFrom, Notes, State
from ...oci.platform import Platform
from ...wire.pb import ops_pb2
from ..gateway.client import NOT_FOUND, Client
from .gitref import GitRefError, parse_context_ref
from .mounts import boolean
from .remote import git, http, is_url
from .sources import local

DOCKERFILE = "Dockerfile"
IGNORE_FILE = ".dockerignore"
_HTTP_NAME = "context"
_SNIFFED = 1024
_MAGIC = (b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\x00")


@dataclass(frozen=True, slots=True)
class Main:
    """The context of a build; None for a folder of the client's.

    `origin` is the source op that a remote context comes from, `archive` the ref of an http archive.
    """

    context: Output | None = None
    remote: bool = False
    dockerfile: Output | None = None
    context_name: str = "context"
    dockerfile_name: str = "dockerfile"
    filename: str = DOCKERFILE
    origin: SourceOp | None = None
    archive: str = ""


class BuildContext:
    """The files of one build; each is asked for once."""

    def __init__(self, client: Client) -> None:
        """Raises SourceError for a context that can't be, BridgeError where fetching it fails."""
        self.client = client
        self.sessions = {
            key.removeprefix("local-sessionid:"): value
            for key, value in client.opts.items()
            if key.startswith("local-sessionid:")
        }
        self.main = _find(client)
        self._ignore: tuple[str, bytes] | None = None
        self._lock = threading.Lock()

    def session(self, name: str) -> str:
        """The session that offers a local source."""
        return self.sessions.get(name, self.client.session_id)

    def read_dockerfile(self) -> tuple[SourceFile, str]:
        """The file, and the digest of the vertex that it came from.

        Raises:
            SourceError: where there is none.
            BridgeError: where it can't be read.
        """
        main = self.main
        shown = main.filename
        names = [shown, f"{shown}{IGNORE_FILE}"]
        folder, base = posixpath.split(shown)
        if base == DOCKERFILE:
            names.append(posixpath.join(folder, DOCKERFILE.lower()))
        source = main.dockerfile
        if source is None:
            source = local(
                main.dockerfile_name,
                self.session(main.dockerfile_name),
                follow=names,
                hint=main.dockerfile_name,
                differ="none",
                shown=f"[internal] load build definition from {shown}",
            ).output
        definition = marshal(source)
        ref = self.client.solve_one(definition)
        data = None
        failed: BridgeError | None = None
        for name in (names[0], *names[2:]):
            try:
                data = self.client.read_file(ref, name)
                break
            except BridgeError as error:
                failed = failed or error
        if data is None:
            assert failed is not None
            raise BridgeError(f"failed to read dockerfile: {failed}", failed.code, failed.status)
        try:
            self._ignore = (names[1], self.client.read_file(ref, names[1]))
        except BridgeError:
            self._ignore = None
        vertex = head_of(definition)
        return SourceFile(shown, data, "Dockerfile", definition), vertex

    def ignored(self) -> list[str]:
        """The patterns of the ignore file; none where the context is not a folder of the client's.

        Raises:
            SourceError: for patterns that are none.
            BridgeError: where it can't be read.
        """
        if self.main.remote:
            return []
        with self._lock:
            if self._ignore is None:
                self._ignore = (IGNORE_FILE, self._read_ignore())
        name, data = self._ignore
        return patterns(name, data)

    def _read_ignore(self) -> bytes:
        name = self.main.context_name
        state = local(
            name,
            self.session(name),
            follow=[IGNORE_FILE],
            hint=f"{name}-{IGNORE_FILE}",
            differ="none",
            shown=f"[internal] load {IGNORE_FILE}",
        )
        ref = self.client.solve_one(marshal(state.output))
        try:
            return self.client.read_file(ref, IGNORE_FILE)
        except BridgeError:
            return b""

    def read_text(self, path: str) -> str | None:
        """A text file of the context, which the ignore file has no say in; None where it is not there.

        Raises:
            BridgeError: where the context can't be read.
        """
        source = self.main.context
        if not self.main.remote:
            name = self.main.context_name
            source = local(
                name,
                self.session(name),
                follow=[path],
                hint=f"{name}-{path}",
                differ="none",
                shown=f"[internal] load {path}",
            ).output
        ref = self.client.solve_one(marshal(source))
        try:
            return self.client.read_file(ref, path).decode(errors="replace")
        except BridgeError as error:
            if "no such file" in str(error) or error.code == NOT_FOUND:
                return None
            raise

    def context(self, follow: Sequence[str]) -> Output | None:
        """The context, reduced to the paths that are read; none means all of it. Raises as `ignored` does."""
        if self.main.remote:
            return self.main.context
        name = self.main.context_name
        return local(
            name,
            self.session(name),
            follow=follow,
            exclude=self.ignored(),
            hint=name,
            shown="[internal] load build context",
        ).output


def head_of(definition: Definition) -> str:
    """The digest of the vertex that is a definition's result, empty for an empty file system."""
    if not definition.ops:
        return ""
    return ops_pb2.Op.FromString(definition.ops[-1]).inputs[0].digest


def patterns(name: str, data: bytes) -> list[str]:
    """The patterns of an ignore file."""
    if not data:
        return []
    from ...grammar.dockerignore import read_ignore

    return read_ignore(data.decode(errors="replace"))


def _find(client: Client) -> Main:
    opts = client.opts
    named = opts.get("contextkey", "context")
    filename = opts.get("filename", DOCKERFILE)
    dockerfile_name = opts.get("dockerfilekey", "dockerfile")
    own_dockerfile = "dockerfilekey" in opts
    text = opts.get(named, "")
    origin: SourceOp | None = None
    archive = ""
    context: Output | None = None
    dockerfile: Output | None = None
    remote = True
    state = git_context(text, opts, client.llb_caps) if text else None
    if state is not None:
        context = dockerfile = state.output
        origin = _source_op(state)
    elif is_url(text):
        context, origin, archive = _http_context(client, text)
        dockerfile = context
        if not archive:
            filename = _HTTP_NAME
    else:
        inputs = client.inputs()
        if not own_dockerfile and dockerfile_name in inputs:
            dockerfile = from_input(dockerfile_name, inputs)
        remote = "context" in inputs
        if remote:
            context = from_input("context", inputs)
    if remote and "contextsubdir" in opts:
        context = _scoped(context, opts["contextsubdir"])
    return Main(
        context,
        remote,
        None if own_dockerfile else dockerfile,
        "context",
        dockerfile_name,
        filename,
        origin,
        archive,
    )


def from_input(name: str, inputs: Mapping[str, ops_pb2.Definition]) -> Output | None:
    """An input as a file system, None where it is empty. Raises SourceError for a broken one."""
    try:
        return given(inputs[name])
    except DefinitionError as error:
        raise SourceError(f"the input {name!r} is no definition: {error}") from None


def _source_op(state: State) -> SourceOp:
    assert state.output is not None
    op = state.output.vertex.op
    assert isinstance(op, SourceOp)
    return op


def git_context(text: str, opts: Mapping[str, str] | None = None, known: CapSet = ALL) -> State | None:
    """The git repository that a context names, None where it names none.

    With the options of the build, its build args say whether to keep `.git` and which times the files get.

    Raises:
        SourceError: for a repository with a broken query.
    """
    try:
        ref = parse_context_ref(text)
    except GitRefError as error:
        raise SourceError(f"{text}: {error}") from None
    if ref is None:
        return None
    given_opts = opts or {}
    keep = ref.keep_git_dir is True or boolean(given_opts.get("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR", "")) is True
    mtime = ref.mtime or ("commit" if given_opts.get("build-arg:SOURCE_DATE_EPOCH") else "")
    if caps.SOURCE_GIT_MTIME not in known:
        mtime = ""
    return git(ref, keep, ref.checksum, Notes(f"[internal] load git source {text}"), mtime=mtime)


def _http_context(client: Client, url: str) -> tuple[Output | None, SourceOp, str]:
    """The context behind a URL: the content of an archive with its ref, or the one file as it is."""
    state = http(url, "", Notes("[internal] load remote build context"), filename=_HTTP_NAME)
    ref = client.solve_one(marshal(state.output))
    try:
        start = client.read_file(ref, _HTTP_NAME, _SNIFFED)
    except BridgeError as error:
        raise BridgeError(f"failed to read downloaded context: {error}", error.code, error.status) from None
    if not is_archive(start):
        return state.output, _source_op(state), ""
    copy = Copy(f"/{_HTTP_NAME}", "/", attempt_unpack=True)
    return State().file([CopyFrom(state, copy)]).output, _source_op(state), ref


def is_archive(start: bytes) -> bool:
    """Whether a file begins as a tar archive does, compressed or not."""
    if start.startswith(_MAGIC):
        return True
    header = start[:512]
    if len(header) < 512 or not header.strip(b"\0"):
        return False
    try:
        wanted = int(header[148:156].strip(b"\0 ") or b"x", 8)
    except ValueError:
        return False
    return wanted == sum(header[:148]) + sum(header[156:]) + 8 * 32


def _scoped(context: Output | None, folder: str) -> Output | None:
    """A folder of the context as the whole of it."""
    copy = Copy(posixpath.join("/", folder), "/", dir_copy_contents=True)
    return State().file([CopyFrom(State(output=context, platform=Platform()), copy)]).output
