"""Named contexts: what `--build-context NAME=…` puts in the place of a stage, an image or the build context."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ...grammar.errors import SourceError
from ...llb import caps
from ...llb.bridge import BridgeError
from ...llb.graph import Deferred, Output
from ...llb.marshal import marshal
from ...llb.state import Notes, State, source
from ...oci.platform import Platform, format_all, normalize
from ...oci.reference import InvalidReference, Reference
from ...oci.reference import parse as parse_reference
from ..gateway.client import ImageInfo, ResolvedElsewhere, Store
from .context import IGNORE_FILE, BuildContext, from_input, git_context, patterns
from .image import Image, load_image
from .options import NamedContext
from .remote import http
from .sources import local

IMAGES = frozenset({"docker-image", "oci-layout"})
"""Kinds of contexts whose digest and config are asked for; equal questions are asked once."""
_MOST_REDIRECTS = 10
Paths = Callable[[], Sequence[str]]


def find(context: BuildContext, name: str, platform: Platform, mode: str, paths: Paths) -> NamedContext | None:
    """The named context of a stage's name or an image's reference; `paths` tells in the end what is read of it.

    Raises:
        SourceError: for a context that is none, or of a kind that is not known.
        BridgeError: where it can't be fetched.
    """
    if name.lower() in ("scratch", "context"):
        return None
    try:
        short = parse_reference(name).familiar.removesuffix(":latest")
    except InvalidReference as error:
        raise SourceError(f"invalid context name {name}: {error}") from None
    for key in _keys(short, platform):
        value = context.client.opts.get(f"context:{key}")
        if value is not None:
            return _Loader(context, short, key, platform, mode, paths).load(value)
    return None


def kind_of(options: Mapping[str, str], reference: str, platform: Platform) -> str:
    """The kind of the context that stands in for an image, empty where none does."""
    short = parse_reference(reference).familiar.removesuffix(":latest")
    for key in _keys(short, platform):
        value = options.get(f"context:{key}")
        if value is not None:
            return value.partition(":")[0] or "unknown"
    return ""


def _keys(short: str, platform: Platform) -> tuple[str, str]:
    return f"{short}::{format_all(normalize(platform))}", short


class _Loader:
    """One named context: `key` is the name with its platform, where the client gave one for each."""

    def __init__(self, context: BuildContext, name: str, key: str, platform: Platform, mode: str, paths: Paths) -> None:
        self._context = context
        self._client = context.client
        self._name = name
        self._key = key
        self._platform = platform
        self._mode = mode
        self._paths = paths

    def load(self, value: str, redirects: int = 0) -> NamedContext:
        if redirects > _MOST_REDIRECTS:
            raise SourceError(
                f"context recursion limit exceeded; the source policies may lead in a circle: {value}",
            )
        kind, separator, rest = value.partition(":")
        if not separator:
            raise SourceError(f"invalid context specifier {value} for {self._key}")
        if kind.startswith("git@") or kind == "git":
            return self._git(value)
        if kind in ("http", "https"):
            return self._http(value)
        if kind == "docker-image":
            return self._image(rest.removeprefix("//"), redirects)
        if kind == "oci-layout":
            return self._layout(rest.removeprefix("//"))
        if kind == "local":
            return self._local(rest.removeprefix("//"))
        if kind == "input":
            return self._input(rest)
        raise SourceError(
            f"unsupported context source {kind} for {self._key}",
            None,
            "a folder, an image, an OCI layout, a git repository, a URL and another build's result are known",
        )

    def _git(self, value: str) -> NamedContext:
        state = git_context(value)
        if state is None:
            raise SourceError(f"invalid git context {value}")
        return NamedContext(state)

    def _http(self, value: str) -> NamedContext:
        state = git_context(value)
        if state is None:
            state = http(value, "", Notes(f"[context {self._key}] {value}"), filename="context")
        return NamedContext(state)

    def _image(self, text: str, redirects: int) -> NamedContext:
        if text == "scratch":
            return NamedContext(State(platform=self._platform))
        try:
            reference = str(parse_reference(text).tag_name_only())
        except InvalidReference as error:
            raise SourceError(f"the context {self._key}: {error}") from None
        try:
            found = self._client.image(
                reference, self._platform, self._mode, f"[context {self._key}] load metadata for {reference}"
            )
        except ResolvedElsewhere as moved:
            return self.load(moved.identifier, redirects + 1)
        shown = f"[context {self._key}] {found.reference}"
        state = source(
            f"docker-image://{parse_reference(found.reference).tag_name_only()}",
            platform=self._platform,
            wanted=[caps.SOURCE_IMAGE],
            notes=Notes(shown),
        )
        return self._with_image(state, found)

    def _layout(self, text: str) -> NamedContext:
        try:
            named = _layout_reference(text)
            shown = str(parse_reference(self._name).with_digest(named.digest))
        except ValueError as error:
            raise SourceError(f"could not parse oci-layout reference {text!r}: {error}") from None
        store = Store(self._client.session_id, named.path)
        log_name = f"[context {self._key}] load metadata for {shown}"
        try:
            found = self._client.image(shown, self._platform, self._mode, log_name, store)
        except ResolvedElsewhere as moved:
            raise SourceError(str(moved)) from None
        state = source(
            f"oci-layout://{shown}",
            {"oci.session": store.session_id, "oci.store": store.name},
            platform=self._platform,
            wanted=[caps.SOURCE_OCI_LAYOUT],
            notes=Notes(f"[context {self._key}] OCI load from client"),
        )
        return self._with_image(state, found)

    def _with_image(self, state: State, found: ImageInfo) -> NamedContext:
        image = _config(found.config, self._key)
        return NamedContext(_with_surroundings(state, image), image)

    def _local(self, name: str) -> NamedContext:
        session = self._context.session(name)
        ignore = local(
            name,
            session,
            follow=[IGNORE_FILE],
            hint=f"context:{self._key}-{IGNORE_FILE}",
            differ="none",
            shown=f"[context {self._key}] load {IGNORE_FILE}",
        )
        ref = self._client.solve_one(marshal(ignore.output), evaluate=True)
        try:
            data = self._client.read_file(ref, IGNORE_FILE)
        except BridgeError:
            data = b""
        exclude = patterns(IGNORE_FILE, data)
        shared = self._client.opts.get(f"sharedkey:localdir:{self._key}", "")
        later = Deferred()

        def settle() -> None:
            state = local(
                name,
                session,
                follow=self._paths(),
                exclude=exclude,
                hint=f"context:{self._key}-{shared}",
                shown=f"[context {self._key}] load from client",
            )
            assert state.output is not None
            later.resolve(state.output)

        return NamedContext(State(output=Output(later)), None, settle)

    def _input(self, name: str) -> NamedContext:
        inputs = self._client.inputs()
        if name not in inputs:
            raise SourceError(f"invalid input {name} for {self._key}")
        output = from_input(name, inputs)
        platform = output.vertex.platform if output is not None else None
        state = State(output=output, platform=platform)
        config = _given_config(self._client.opts, name)
        if config is None:
            return NamedContext(state)
        image = _config(config, self._key)
        return NamedContext(_with_surroundings(state, image), image)


def _layout_reference(text: str) -> Reference:
    """Name and digest of an image in a layout; the name is a store's and takes no default domain."""
    name, separator, digest = text.partition("@")
    if not separator:
        raise ValueError("it has no digest")
    head, _, tail = name.rpartition("/")
    path = f"{head}/{tail.partition(':')[0]}" if head else tail.partition(":")[0]
    if not path:
        raise ValueError("it has no name")
    return Reference("", path).with_digest(digest)


def _config(data: bytes, name: str) -> Image:
    try:
        return load_image(data)
    except ValueError as error:
        raise SourceError(f"could not parse image config for {name}: {error}") from None


def _with_surroundings(state: State, image: Image) -> State:
    """The state with what the image config says of its processes."""
    for entry in image.config.env:
        key, _, value = entry.partition("=")
        state = state.with_env(key, value)
    if image.config.working_dir:
        state = state.with_dir(image.config.working_dir)
    if image.platform.os and image.platform.architecture:
        state = replace(state, platform=image.platform)
    return state


def _given_config(options: Mapping[str, str], name: str) -> bytes | None:
    """The image config that the client sends beside an input, where it does."""
    text = options.get(f"input-metadata:{name}")
    if text is None:
        return None
    import base64

    try:
        encoded = json.loads(text).get("containerimage.config")
        return None if encoded is None else base64.b64decode(encoded)
    except (ValueError, TypeError, AttributeError) as error:
        raise SourceError(f"failed to parse input metadata {text}: {error}") from None
