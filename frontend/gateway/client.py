"""What frontends do through the bridge, whatever the other side's age: solve, read, resolve, warn."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...llb import caps as llb_caps
from ...llb.bridge import Bridge, BridgeError, FrontendCall
from ...llb.caps import CapSet
from ...llb.marshal import Definition
from ...oci.platform import Platform, normalize
from ...wire.pb import caps_pb2, gateway_pb2, ops_pb2
from . import caps

INVALID_ARGUMENT = 3
NOT_FOUND = 5
UNIMPLEMENTED = 12
"""gRPC's status codes."""
_RESOLVE_FROM_LAYOUT = 1


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What resolving an image gave: the reference that the source policy wants, the digest, the config."""

    reference: str
    digest: str
    config: bytes


@dataclass(frozen=True, slots=True)
class Store:
    """The OCI image layout of the client that an image is in."""

    session_id: str
    name: str


class ResolvedElsewhere(Exception):
    """A source policy has turned an image into another kind of source, which `identifier` names."""

    def __init__(self, reference: str, identifier: str) -> None:
        super().__init__(f"ref {reference} was updated to {identifier} by the source policy, which is no image")
        self.identifier = identifier


class Client:
    """One build's calls; they may come from several threads at once."""

    def __init__(self, bridge: Bridge, call: FrontendCall) -> None:
        """Asks the other side what it can do. Raises BridgeError."""
        self.bridge = bridge
        self.opts = dict(call.opts)
        self.session_id = call.session_id
        pong = bridge.ping()
        self.caps = _cap_set(pong.FrontendAPICaps, caps.FIRST)
        self.llb_caps = _cap_set(pong.LLBCaps, llb_caps.FIRST)
        self.build_platforms = [_platform(p) for p in pong.Workers[0].platforms] if pong.Workers else []
        self._images: dict[tuple[object, ...], ImageInfo | BridgeError | ResolvedElsewhere] = {}
        self._lock = threading.Lock()
        self._inputs: Mapping[str, ops_pb2.Definition] | None = None

    def solve(
        self,
        definition: Definition | ops_pb2.Definition | None = None,
        *,
        evaluate: bool = False,
        cache_imports: Sequence[gateway_pb2.CacheOptionsEntry] = (),
        frontend: str = "",
        opts: Mapping[str, str] | None = None,
        inputs: Mapping[str, ops_pb2.Definition] | None = None,
    ) -> gateway_pb2.Result:
        """Solve a definition, or hand over to another frontend. Raises BridgeError, CapError."""
        request = gateway_pb2.SolveRequest(
            Frontend=frontend, allowResultReturn=True, allowResultArrayRef=True, CacheImports=cache_imports
        )
        if definition is not None:
            message = definition.to_pb() if isinstance(definition, Definition) else definition
            for entry in message.metadata.values():
                self.llb_caps.require(cap for cap, wanted in entry.caps.items() if wanted)
            request.Definition.CopyFrom(message)
        request.FrontendOpt.update(opts or {})
        for key in ("cache-imports", "cache-from"):
            if key in self.opts and key not in request.FrontendOpt:
                request.FrontendOpt[key] = self.opts[key]
        for name, given in (inputs or {}).items():
            request.FrontendInputs[name].CopyFrom(given)
        if caps.RETURN not in self.caps:
            request.ExporterAttr = b"{}"
        request.Evaluate = evaluate and caps.EVALUATE_SOLVE in self.caps
        response = self.bridge.solve(request)
        result = response.result
        if not response.HasField("result"):
            result = gateway_pb2.Result(refDeprecated=response.ref)
        if evaluate and not request.Evaluate and caps.STAT_FILE in self.caps:
            for ref in _refs(result):
                self.bridge.stat_file(gateway_pb2.StatFileRequest(Ref=ref, Path="."))
        return result

    def solve_one(
        self,
        definition: Definition | ops_pb2.Definition,
        *,
        evaluate: bool = False,
        cache_imports: Sequence[gateway_pb2.CacheOptionsEntry] = (),
    ) -> str:
        """Solve a definition to its one ref; empty for an empty file system. Raises BridgeError, CapError."""
        return single_ref(self.solve(definition, evaluate=evaluate, cache_imports=cache_imports))

    def read_file(self, ref: str, path: str, length: int = 0) -> bytes:
        """A file of a ref, or its first `length` bytes. Raises BridgeError, also where there is none."""
        if not ref:
            raise BridgeError(f"open {path}: no such file or directory", NOT_FOUND)
        request = gateway_pb2.ReadFileRequest(Ref=ref, FilePath=path)
        if length:
            request.Range.Length = length
        return self.bridge.read_file(request).Data

    def inputs(self) -> Mapping[str, ops_pb2.Definition]:
        """The definitions that the client gave beside the options, none where the gateway is older than they are."""
        if self._inputs is None:
            found: Mapping[str, ops_pb2.Definition] = {}
            if caps.FRONTEND_INPUTS in self.caps:
                found = dict(self.bridge.inputs().Definitions)
            self._inputs = found
        return self._inputs

    def image(
        self, reference: str, platform: Platform | None, mode: str, log_name: str, store: Store | None = None
    ) -> ImageInfo:
        """The digest and config of an image. Equal questions are asked once.

        Raises:
            BridgeError: where it can't be had.
            ResolvedElsewhere: where a source policy makes something else of it.
        """
        key = (reference, platform, mode, store)
        with self._lock:
            known = self._images.get(key)
        if known is None:
            try:
                known = self._resolve(reference, platform, mode, log_name, store)
            except (BridgeError, ResolvedElsewhere) as error:
                known = error
            with self._lock:
                self._images[key] = known
        if isinstance(known, Exception):
            raise known
        return known

    def _resolve(
        self, reference: str, platform: Platform | None, mode: str, log_name: str, store: Store | None
    ) -> ImageInfo:
        wanted = None if platform is None else platform_to_pb(platform)
        if caps.SOURCE_META not in self.caps:
            old = gateway_pb2.ResolveImageConfigRequest(
                Ref=reference, Platform=wanted, ResolveMode=mode, LogName=log_name
            )
            if store is not None:
                old.ResolverType, old.SessionID, old.StoreID = _RESOLVE_FROM_LAYOUT, store.session_id, store.name
            answer = self.bridge.resolve_image_config(old)
            return ImageInfo(answer.Ref or reference, answer.Digest, answer.Config)
        scheme = "docker-image" if store is None else "oci-layout"
        source = ops_pb2.SourceOp(identifier=f"{scheme}://{reference}")
        if store is not None:
            source.attrs.update({"oci.session": store.session_id, "oci.store": store.name})
        request = gateway_pb2.ResolveSourceMetaRequest(
            Source=source, Platform=wanted, ResolveMode=mode, LogName=log_name
        )
        found = self.bridge.resolve_source_meta(request)
        identifier = found.Source.identifier or source.identifier
        if not found.HasField("Image"):
            raise ResolvedElsewhere(reference, identifier)
        return ImageInfo(identifier.partition("://")[2], found.Image.Digest, found.Image.Config)

    def warn(self, request: gateway_pb2.WarnRequest) -> None:
        """Tell the client of a finding, where the gateway passes such on."""
        if caps.WARNINGS in self.caps:
            self.bridge.warn(request)


def _cap_set(announced: Iterable[caps_pb2.APICap], first: frozenset[str]) -> CapSet:
    entries = list(announced)
    if not entries:
        return CapSet(first)
    return CapSet(
        frozenset(entry.ID for entry in entries if entry.Enabled),
        {entry.ID: entry.DisabledReasonMsg or "switched off" for entry in entries if not entry.Enabled},
    )


def _platform(message: ops_pb2.Platform) -> Platform:
    return normalize(
        Platform(message.OS, message.Architecture, message.Variant, message.OSVersion, tuple(message.OSFeatures))
    )


def platform_to_pb(platform: Platform) -> ops_pb2.Platform:
    """The message that names a platform."""
    return ops_pb2.Platform(
        OS=platform.os,
        Architecture=platform.architecture,
        Variant=platform.variant,
        OSVersion=platform.os_version,
        OSFeatures=list(platform.os_features),
    )


def _refs(result: gateway_pb2.Result) -> list[str]:
    kind = result.WhichOneof("result")
    if kind == "refs":
        return [ref.id for ref in result.refs.refs.values() if ref.id]
    if kind == "refsDeprecated":
        return [ref for ref in result.refsDeprecated.refs.values() if ref]
    ref = result.ref.id if kind == "ref" else result.refDeprecated
    return [ref] if ref else []


def single_ref(result: gateway_pb2.Result) -> str:
    """The one ref of a result, empty for an empty file system. Raises BridgeError for a result of several."""
    if result.WhichOneof("result") in ("refs", "refsDeprecated"):
        raise BridgeError("the solve gave several results where one was expected")
    refs = _refs(result)
    return refs[0] if refs else ""
