"""Provenance: what a result was made from and how, as an SLSA predicate.

Source: BuildKit's docs/attestations/slsa-provenance.md and slsa-definitions.md, and its solver/llbsolver/provenance for
the fields; SLSA v0.2 and v1.
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

from ..oci.platform import Platform, host
from ..oci.reference import InvalidReference, parse
from ..wire import errors
from ..wire.errors import to_json
from ..wire.pb import gateway_pb2, ops_pb2
from .base import Attestation, Context, SolveError
from .gateway.metadata import platform_of
from .gateway.refs import Ref

if TYPE_CHECKING:
    from .build import Build

PREDICATE_V02 = "https://slsa.dev/provenance/v0.2"
PREDICATE_V1 = "https://slsa.dev/provenance/v1"
BUILD_TYPE_V02 = "https://mobyproject.org/buildkit@v1"
BUILD_TYPE_V1 = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
_METADATA = "https://mobyproject.org/buildkit@v1#metadata"
_HERMETIC = "https://mobyproject.org/buildkit@v1#hermetic"
_KINDS = ("sbom", "provenance")
_HOST_ONLY = frozenset({"cgroup-parent", "image-resolve-mode", "platform", "cache-imports"})
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


def requested(attrs: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The attestations that frontend options ask for, with their attributes.

    Raises:
        SolveError: for a kind that is not known.
    """
    out: dict[str, dict[str, str]] = {}
    for key, value in attrs.items():
        for prefix in ("attest:", "build-arg:BUILDKIT_ATTEST_"):
            if not key.startswith(prefix):
                continue
            kind = key.removeprefix(prefix).lower()
            if kind not in _KINDS:
                raise SolveError(f"unknown attestation type {kind!r}", code=errors.INVALID_ARGUMENT)
            fields = next(csv.reader(io.StringIO(value)), [])
            pairs = (part.partition("=") for part in fields)
            out[kind] = {name: text for name, _, text in pairs}
    return out


@dataclass(frozen=True, slots=True)
class Options:
    """How a provenance is wanted."""

    mode: str = "max"
    version: str = "v1"
    builder_id: str = ""
    reproducible: bool = False
    inline_only: bool = False
    complete_materials: bool = False
    filename: str = "provenance.json"

    @classmethod
    def of(cls, attrs: Mapping[str, str]) -> "Options":
        """Read attributes. Raises SolveError for one that makes no sense."""
        mode = {"full": "max", "": "max"}.get(attrs.get("mode", ""), attrs.get("mode", ""))
        version = attrs.get("version", "") or "v1"
        if mode not in ("min", "max"):
            raise SolveError(f"invalid mode {mode!r} of a provenance: use min or max", code=errors.INVALID_ARGUMENT)
        if version not in ("v0.2", "v1"):
            raise SolveError(f"invalid provenance SLSA version: {version}", code=errors.INVALID_ARGUMENT)
        return cls(
            mode,
            version,
            attrs.get("builder-id", ""),
            _flag(attrs, "reproducible"),
            attrs.get("inline-only", "") in _TRUE,
            _flag(attrs, "complete-materials"),
            attrs.get("filename", "") or "provenance.json",
        )

    @property
    def predicate_type(self) -> str:
        """The type of the predicate."""
        return PREDICATE_V02 if self.version == "v0.2" else PREDICATE_V1


def _flag(attrs: Mapping[str, str], name: str) -> bool:
    value = attrs.get(name, "false")
    if value not in (*_TRUE, *_FALSE):
        raise SolveError(f"failed to parse {name} flag {value!r}", code=errors.INVALID_ARGUMENT)
    return value in _TRUE


@dataclass(slots=True)
class Capture:
    """What a result was made from."""

    images: list[tuple[str, Platform | None, str, bool]] = field(default_factory=list)
    """Reference, platform, digest, and whether it comes from a client's layout."""
    git: list[tuple[str, str]] = field(default_factory=list)
    """Address and commit."""
    http: list[tuple[str, str]] = field(default_factory=list)
    """Address and digest."""
    locals: list[str] = field(default_factory=list)
    secrets: dict[str, bool] = field(default_factory=dict)
    """Id, and whether it was optional."""
    ssh: dict[str, bool] = field(default_factory=dict)
    network: bool = False

    @property
    def complete(self) -> bool:
        """Whether everything that went in has a digest."""
        return not self.locals

    def materials(self) -> list[dict[str, Any]]:
        """What went in, with digests."""
        out = []
        for reference, platform, digest, local in self.images:
            out.append({"uri": purl("oci" if local else "docker", reference, platform), "digest": _digest_set(digest)})
        for url, commit in self.git:
            out.append({"uri": url, "digest": _commit_set(commit)})
        for url, digest in self.http:
            out.append({"uri": url, "digest": _digest_set(digest)})
        return out


def _digest_set(digest: str) -> dict[str, str]:
    algorithm, _, encoded = digest.partition(":")
    return {algorithm: encoded} if encoded else {}


def _commit_set(commit: str) -> dict[str, str]:
    return {"sha256" if len(commit) == 64 else "sha1": commit}


def purl(kind: str, reference: str, platform: Platform | None) -> str:
    """The package URL of an image (the purl specification, types docker and oci)."""
    try:
        found = parse(reference)
    except InvalidReference:
        return reference
    qualifiers = []
    if found.digest:
        qualifiers.append(("digest", found.digest))
    else:
        found = found.tag_name_only()
    if platform is not None:
        qualifiers.append(("platform", str(platform)))
    name = "/".join(quote(part, safe=":") for part in found.trimmed().familiar.split("/"))
    text = f"pkg:{kind}/{name}"
    if found.tag:
        text += f"@{quote(found.tag, safe='')}"
    return text + ("?" + "&".join(f"{key}={quote(value, safe=':')}" for key, value in qualifiers) if qualifiers else "")


def redacted(url: str) -> str:
    """An address without user name and password."""
    try:
        parts = urlsplit(url)
        if parts.username is None and parts.password is None:
            return url
        user = "xxxxx" if parts.username else ""
        if parts.password is not None:
            user += ":xxxxx"
        return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}"))
    except ValueError:
        return url


def _ops(definition: ops_pb2.Definition) -> list[tuple[str, ops_pb2.Op]]:
    return [
        ("sha256:" + hashlib.sha256(data).hexdigest(), ops_pb2.Op.FromString(data))
        for data in getattr(definition, "def")
    ]


def capture(build: "Build", definition: ops_pb2.Definition) -> Capture:
    """What a definition's result is made from; asks sources what they were pinned to, which they know by now."""
    out = Capture()
    for _, op in _ops(definition):
        kind = op.WhichOneof("op")
        if kind == "source":
            _source(op, build, out)
        elif kind == "exec":
            for mount in op.exec.mounts:
                if mount.mountType == ops_pb2.SECRET:
                    _needed(out.secrets, mount.secretOpt.ID, mount.secretOpt.optional)
                elif mount.mountType == ops_pb2.SSH:
                    _needed(out.ssh, mount.SSHOpt.ID or "default", mount.SSHOpt.optional)
            for secret in op.exec.secretenv:
                _needed(out.secrets, secret.ID, secret.optional)
            out.network |= op.exec.network != ops_pb2.NONE
    for name in build.local_names():
        if name not in out.locals:
            out.locals.append(name)
    out.images.sort(key=lambda image: image[0])
    out.git.sort()
    out.http.sort()
    out.locals.sort()
    return out


def _needed(known: dict[str, bool], id: str, optional: bool) -> None:
    known[id] = known.get(id, True) and optional


def _source(op: ops_pb2.Op, build: "Build", out: Capture) -> None:
    source = op.source
    scheme, _, rest = source.identifier.partition("://")
    context = build.context
    if scheme in ("docker-image", "oci-layout"):
        platform = platform_of(op.platform) if op.HasField("platform") else None
        image = _image(scheme, rest, platform, build, source)
        if image not in out.images:
            out.images.append(image)
    elif scheme == "git":
        from .sources import git

        response = gateway_pb2.ResolveSourceGitResponse()
        git.resolve_meta(source, False, context, response)
        found = (redacted(_git_url(source)), response.CommitChecksum or response.Checksum)
        if found not in out.git:
            out.git.append(found)
    elif scheme in ("http", "https"):
        from .sources import http

        answer = gateway_pb2.ResolveSourceHTTPResponse()
        http.resolve_meta(source, context, answer)
        if (redacted(source.identifier), answer.Checksum) not in out.http:
            out.http.append((redacted(source.identifier), answer.Checksum))
    elif scheme == "local" and rest not in out.locals:
        out.locals.append(rest)


def _git_url(source: ops_pb2.SourceOp) -> str:
    """The repository's address with the ref, as `git clone` and a Dockerfile's `ADD` take it."""
    body, hash_mark, fragment = source.identifier.removeprefix("git://").partition("#")
    full = source.attrs.get("git.fullurl", "") or f"https://{body}"
    return full + (hash_mark + fragment if fragment else "")


def _image(
    scheme: str, reference: str, platform: Platform | None, build: "Build", source: ops_pb2.SourceOp
) -> tuple[str, Platform | None, str, bool]:
    name, _, digest = reference.partition("@")
    local = scheme == "oci-layout"
    if not digest:
        from .sources import image

        digest = image.resolve_config(reference, platform, source.attrs.get("image.resolvemode", ""), build.context)[1]
        return reference, platform, digest, local
    # A frontend pins the tags that it was asked for: the tag says more than the digest beside it.
    try:
        tagged = bool(parse(name).tag)
    except InvalidReference:
        tagged = False
    return (name if tagged else reference), platform, digest, local


def attest(build: "Build", ref: Ref | None, options: Options) -> Attestation | None:
    """The provenance of a result, made when it is exported; None for an empty result.

    Raises:
        SolveError: where complete materials are demanded and some are not known.
    """
    if ref is None:
        return None
    found = capture(build, ref.definition)
    if options.complete_materials and not found.complete:
        names = "".join(f"\n  - {name}\n    reason: local_source" for name in found.locals)
        raise SolveError(f"provenance materials are incomplete\n\nUncaptured local sources:{names}")
    made: list[bytes] = []

    def content() -> bytes:
        if not made:
            predicate = _predicate(build, ref, found, options)
            made.append(json.dumps(predicate, indent=2, ensure_ascii=False).encode())
        return made[0]

    return Attestation(
        kind="intoto",
        result=None,
        path=options.filename,
        predicate_type=options.predicate_type,
        metadata={"reason": b"provenance", "inline-only": b"true" if options.inline_only else b"false"},
        content=content,
    )


def _predicate(build: "Build", ref: Ref, found: Capture, options: Options) -> dict[str, Any]:
    config_source, request, vcs = _request(ref, found)
    complete_request = bool(request.get("frontend"))
    if options.mode == "min":
        args = request.get("args", {})
        kept = {key: value for key, value in args.items() if not key.startswith(("build-arg:", "label:"))}
        complete_request &= len(kept) == len(args)
        request = {**request, "args": kept} if "args" in request else request
        request = {key: value for key, value in request.items() if key not in ("secrets", "ssh")}
    notes: dict[str, Any] = {"vcs": vcs} if vcs else {}
    internal: dict[str, Any] = {"builderPlatform": str(host())}
    config: dict[str, Any] | None = None
    if options.mode == "max":
        steps, mapping = _steps(ref.definition)
        config = {"llbDefinition": steps, "digestMapping": mapping}
        source = _sources(ref.definition, mapping)
        if source:
            notes["source"] = source
        layers = _layers(build, ref, mapping)
        if layers:
            notes["layers"] = layers
    finished = _moment(build.finished())
    hermetic = found.complete and not found.network
    if options.version == "v0.2":
        metadata = {
            "buildInvocationID": build.invocation,
            "buildStartedOn": _moment(build.started),
            "buildFinishedOn": finished,
            "completeness": {"parameters": complete_request, "environment": True, "materials": found.complete},
            "reproducible": options.reproducible,
            _METADATA: notes,
            **({_HERMETIC: True} if hermetic else {}),
        }
        entry = {"uri": config_source["uri"]} if "uri" in config_source else {}
        entry |= {"digest": config_source["digest"]} if "digest" in config_source else {}
        entry |= {"entryPoint": config_source["path"]} if "path" in config_source else {}
        return {
            "builder": {"id": options.builder_id},
            "buildType": BUILD_TYPE_V02,
            "materials": found.materials(),
            "invocation": {
                "configSource": entry,
                "parameters": request,
                "environment": {"platform": internal["builderPlatform"]},
            },
            **({"buildConfig": config} if config else {}),
            "metadata": metadata,
        }
    if config:
        internal["buildConfig"] = config
    materials = found.materials()
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE_V1,
            "externalParameters": {"configSource": config_source, "request": request},
            "internalParameters": internal,
            **({"resolvedDependencies": materials} if materials else {}),
        },
        "runDetails": {
            "builder": {"id": options.builder_id},
            "metadata": {
                "invocationId": build.invocation,
                "startedOn": _moment(build.started),
                "finishedOn": finished,
                "buildkit_metadata": notes,
                **({"buildkit_hermetic": True} if hermetic else {}),
                "buildkit_completeness": {"request": complete_request, "resolvedDependencies": found.complete},
                **({"buildkit_reproducible": True} if options.reproducible else {}),
            },
        },
    }


def _moment(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _request(ref: Ref, found: Capture) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Where the build's description comes from, what was asked for, and what the client said of its repository."""
    request: dict[str, Any] = {}
    source: dict[str, Any] = {}
    vcs: dict[str, str] = {}
    if ref.request is not None:
        frontend, options = ref.request
        request["frontend"] = frontend
        args = {}
        for key, value in options.items():
            if key in _HOST_ONLY or key.startswith(("attest:", "build-arg:BUILDKIT_ATTEST_")):
                continue
            if key == "context" or key.startswith("context:") or key == options.get("contextkey"):
                value = redacted(value)
            args[key] = value
        key = args.get("contextkey") or ("context" if "input:context" not in args else "input:context")
        if args.get(key):
            address = args.pop(key)
            source["uri"] = address
            for url, commit in found.git:
                if url == address or url.partition("#")[0] == address.partition("#")[0]:
                    source |= {"uri": url, "digest": _commit_set(commit)}
            for url, digest in found.http:
                if url == address:
                    source["digest"] = _digest_set(digest)
        if args.get("filename"):
            source["path"] = args.pop("filename")
        for key in [key for key in args if key.startswith("vcs:")]:
            value = args.pop(key)
            if value:
                vcs[key.removeprefix("vcs:")] = redacted(value) if key == "vcs:source" else value
        request["args"] = args
    if found.secrets:
        request["secrets"] = [_optional(id, flag) for id, flag in sorted(found.secrets.items())]
    if found.ssh:
        request["ssh"] = [_optional(id, flag) for id, flag in sorted(found.ssh.items())]
    if found.locals:
        request["locals"] = [{"name": name} for name in found.locals]
    return source, request, vcs


def _optional(id: str, optional: bool) -> dict[str, Any]:
    return {"id": id, "optional": True} if optional else {"id": id}


def _steps(definition: ops_pb2.Definition) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The graph, its ops numbered with inputs first."""
    ops = _ops(definition)
    mapping = {digest: f"step{number}" for number, (digest, _) in enumerate(ops)}
    steps = []
    for digest, op in ops:
        inputs = [f"{mapping[i.digest]}:{i.index}" for i in op.inputs]
        op.ClearField("inputs")
        for key in ("local.session", "local.unique"):
            op.source.attrs.pop(key, None) if op.HasField("source") else None
        step: dict[str, Any] = {"id": mapping[digest], "op": _op_json(op)}
        if inputs:
            step["inputs"] = inputs
        steps.append(step)
    return steps, mapping


def _op_json(op: ops_pb2.Op) -> dict[str, Any]:
    """An op as BuildKit's own JSON has it: the kind of op, of action and of user stand below a key of their own."""
    plain = to_json(op)
    out: dict[str, Any] = {"Op": {}}
    for key, value in plain.items():
        if key in ("platform", "constraints"):
            out[key] = value
        else:
            out["Op"][key] = value
    for action in out["Op"].get("file", {}).get("actions", ()):
        kinds = {key: action.pop(key) for key in ("copy", "mkfile", "mkdir", "rm", "symlink") if key in action}
        for key in ("input", "secondaryInput", "output"):
            action.setdefault(key, 0)
        action["Action"] = kinds
        for one in kinds.values():
            for user in one.get("owner", {}).values():
                found = dict(user)
                user.clear()
                user["User"] = {{"byID": "byId"}.get(key, key): value for key, value in found.items()}
    return out


def _sources(definition: ops_pb2.Definition, mapping: Mapping[str, str]) -> dict[str, Any]:
    infos = []
    for info in definition.Source.infos:
        entry: dict[str, Any] = {"filename": info.filename, "language": info.language}
        entry["data"] = to_json(info).get("data", "")
        if getattr(info.definition, "def"):
            entry["llbDefinition"], entry["digestMapping"] = _steps(info.definition)
        infos.append({key: value for key, value in entry.items() if value})
    if not infos:
        return {}
    locations = {
        mapping[digest]: to_json(found) for digest, found in definition.Source.locations.items() if digest in mapping
    }
    return {"locations": locations, "infos": infos}


def _layers(build: "Build", ref: Ref, mapping: Mapping[str, str]) -> dict[str, Any]:
    """The layers of results that have been packed by now, by step and output."""
    out: dict[str, Any] = {}
    for digest, results in build.job.results(mapping):
        for index, result in enumerate(results):
            found = _chain(result.snapshot, build.context)
            if found:
                out[f"{mapping[digest]}:{index}"] = [found]
    return out


def _chain(snapshot: str | None, context: Context) -> Sequence[Mapping[str, Any]]:
    from .layers import get_layer

    try:
        names = context.snapshots.chain(snapshot)
    except KeyError:
        return []
    out = []
    for name in names:
        layer = get_layer(context, name)
        if layer is None:
            return []
        found = layer.descriptor
        out.append({"mediaType": found.media_type, "digest": found.digest, "size": found.size})
    return out
