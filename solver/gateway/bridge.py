"""`LLBBridge` over the solver: for the frontends of this process directly, for others behind the gRPC service.

Refs go by ids that only the bridge which gave them knows. All calls raise BridgeError, whose `status` has the typed
details of BuildKit's errors.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ...grammar.errors import SourceError
from ...llb.bridge import BridgeError
from ...wire import errors
from ...wire.pb import control_pb2, gateway_pb2, ops_pb2
from ..base import Cancelled, SolveError
from ..errdefs import to_status
from .refs import Outcome, Ref, solve_all

if TYPE_CHECKING:
    from ..build import Build
    from .containers import Containers

_Read = TypeVar("_Read")


class Gateway:
    """One frontend's bridge to a build; implements `llb.bridge.Bridge`. May be used by several threads.

    `build` is what the frontend is part of, `inputs` are the definitions that it was given. `containers` has what
    `NewContainer` and `ExecProcess` need. Close it when the frontend has returned.
    """

    def __init__(self, build: "Build", inputs: Mapping[str, ops_pb2.Definition], depth: int = 0) -> None:
        self.build = build
        self._depth = depth
        self._inputs = dict(inputs)
        self._lock = threading.Lock()
        self._refs: dict[str, Ref | None] = {}
        self._containers: Containers | None = None
        self.final: Outcome | None = None
        """What a frontend in the oldest form gave, by a solve that it called the final one."""

    @property
    def containers(self) -> "Containers":
        """The containers of this frontend."""
        from .containers import Containers

        with self._lock:
            if self._containers is None:
                self._containers = Containers(self)
            return self._containers

    def close(self) -> None:
        """End what the frontend left behind."""
        if self._containers is not None:
            self._containers.close()

    def ref(self, id: str) -> Ref | None:
        """The ref of an id; an empty id is an empty file system. Raises BridgeError for one that was never given."""
        if not id:
            return None
        with self._lock:
            if id not in self._refs:
                raise BridgeError(f"no such ref: {id}", errors.NOT_FOUND)
            return self._refs[id]

    def ping(self) -> gateway_pb2.PongResponse:
        """Capabilities and the worker."""
        from .caps import gateway_caps, llb_caps

        return gateway_pb2.PongResponse(
            FrontendAPICaps=gateway_caps(), LLBCaps=llb_caps(), Workers=[self.build.worker()]
        )

    def inputs(self) -> gateway_pb2.InputsResponse:
        """The definitions that the frontend was given."""
        return gateway_pb2.InputsResponse(Definitions=self._inputs)

    def solve(self, request: gateway_pb2.SolveRequest) -> gateway_pb2.SolveResponse:
        """Refs for a definition, or for what another frontend makes; with `Evaluate` once their results are there."""
        with self.errors():
            outcome = self._solved(request)
            if request.Evaluate:
                solve_all(outcome.every_ref(), None)
            if outcome.refs and "" not in outcome.refs and not request.allowResultReturn:
                raise SolveError(
                    "the result has several refs, which this form of a solve can't return", code=errors.INVALID_ARGUMENT
                )
            result = self._result(outcome, arrays=request.allowResultArrayRef)
            if request.Final:
                self.final = Outcome(outcome.refs, {**_attributes(request.ExporterAttr), **outcome.metadata})
            response = gateway_pb2.SolveResponse(result=result)
            if not request.allowResultReturn:
                response.ref = result.ref.id or result.refDeprecated
            return response

    def _solved(self, request: gateway_pb2.SolveRequest) -> Outcome:
        if request.Frontend:
            if getattr(request.Definition, "def"):
                raise SolveError("a solve names both a definition and a frontend", code=errors.INVALID_ARGUMENT)
            return self.build.frontend(
                request.Frontend,
                request.FrontendOpt,
                request.FrontendInputs,
                imports=request.CacheImports,
                policies=request.SourcePolicies,
                depth=self._depth + 1,
            )
        if not getattr(request.Definition, "def"):
            return Outcome()
        ref = self.build.ref(request.Definition, imports=request.CacheImports, policies=request.SourcePolicies)
        return Outcome({"": ref})

    def _keep(self, ref: Ref | None) -> str:
        if ref is None:
            return ""
        with self._lock:
            self._refs[ref.id] = ref
        return ref.id

    def _result(self, outcome: Outcome, *, arrays: bool) -> gateway_pb2.Result:
        """An outcome as a message, its refs known to this bridge from now on."""
        result = gateway_pb2.Result(metadata=outcome.metadata)
        if "" in outcome.refs or not outcome.refs:
            ref = outcome.refs.get("")
            id = self._keep(ref)
            if arrays:
                result.ref.id = id
                if ref is not None:
                    getattr(result.ref, "def").CopyFrom(ref.definition)
            else:
                result.refDeprecated = id
        elif arrays:
            result.refs.SetInParent()
            for key, ref in outcome.refs.items():
                target = result.refs.refs[key]
                target.id = self._keep(ref)
                if ref is not None:
                    getattr(target, "def").CopyFrom(ref.definition)
        else:
            result.refsDeprecated.SetInParent()
            for key, ref in outcome.refs.items():
                result.refsDeprecated.refs[key] = self._keep(ref)
        for key, entries in outcome.attestations.items():
            for attestation, ref in entries:
                target_entry = result.attestations[key].attestation.add()
                target_entry.CopyFrom(attestation)
                target_entry.ClearField("ref")
                if ref is not None:
                    target_entry.ref.id = self._keep(ref)
                    getattr(target_entry.ref, "def").CopyFrom(ref.definition)
        return result

    def outcome(self, result: gateway_pb2.Result) -> Outcome:
        """What a result that the frontend returned stands for. Raises BridgeError for a ref that it was not given."""
        form = result.WhichOneof("result")
        refs: dict[str, Ref | None] = {}
        if form == "refDeprecated":
            refs[""] = self.ref(result.refDeprecated)
        elif form == "ref":
            refs[""] = self.ref(result.ref.id)
        elif form == "refs":
            refs = {key: self.ref(one.id) for key, one in result.refs.refs.items()}
        elif form == "refsDeprecated":
            refs = {key: self.ref(id) for key, id in result.refsDeprecated.refs.items()}
        attestations = {
            key: [(one, self.ref(one.ref.id)) for one in entries.attestation]
            for key, entries in result.attestations.items()
        }
        return Outcome(refs, dict(result.metadata), attestations)

    def evaluate(self, request: gateway_pb2.EvaluateRequest) -> gateway_pb2.EvaluateResponse:
        """Wait for a result."""
        with self.errors():
            ref = self.ref(request.Ref)
            if ref is not None:
                ref.result()
            return gateway_pb2.EvaluateResponse()

    def resolve_image_config(
        self, request: gateway_pb2.ResolveImageConfigRequest
    ) -> gateway_pb2.ResolveImageConfigResponse:
        """The digest and config of an image."""
        if request.ResolverType == 1:
            source = ops_pb2.SourceOp(identifier=_with_scheme(request.Ref, "oci-layout://"))
            source.attrs["oci.store"] = request.StoreID
            source.attrs["oci.session"] = request.SessionID
        else:
            source = ops_pb2.SourceOp(identifier=_with_scheme(request.Ref, "docker-image://"))
        asked = gateway_pb2.ResolveSourceMetaRequest(
            Source=source,
            LogName=request.LogName,
            ResolveMode=request.ResolveMode,
            SourcePolicies=request.SourcePolicies,
        )
        if request.HasField("Platform"):
            asked.Platform.CopyFrom(request.Platform)
        found = self.resolve_source_meta(asked)
        return gateway_pb2.ResolveImageConfigResponse(
            Digest=found.Image.Digest,
            Config=found.Image.Config,
            Ref=found.Source.identifier.removeprefix("docker-image://").removeprefix("oci-layout://"),
        )

    def resolve_source_meta(
        self, request: gateway_pb2.ResolveSourceMetaRequest
    ) -> gateway_pb2.ResolveSourceMetaResponse:
        """What is known of a source, after the policy."""
        with self.errors():
            if not request.Source.identifier:
                raise SolveError("source is required", code=errors.INVALID_ARGUMENT)
            return self.build.source_meta(request)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What goes wrong in the block, as BridgeError."""
        try:
            yield
        except BridgeError:
            raise
        except (SolveError, Cancelled, SourceError, OSError, ValueError) as error:
            seen = self._seen_by(error) if isinstance(error, SolveError) else []
            status = to_status(error, inputs=seen, mounts=seen)
            raise BridgeError(status.message, status.code, status.SerializeToString()) from error

    def _seen_by(self, error: SolveError) -> list[str]:
        """For each mount of a process that failed a ref of what it began with, so that a client can look into it."""
        if not error.op:
            return []
        op = ops_pb2.Op.FromString(error.op)
        if op.WhichOneof("op") != "exec":
            return []
        inputs = self.build.job.inputs_of(error.vertex)
        if not inputs:
            return []
        ids: list[str] = []
        for mount in op.exec.mounts:
            known = 0 <= mount.input < len(inputs)
            ids.append(self._keep(Ref(self.build.job, ops_pb2.Definition(), inputs[mount.input])) if known else "")
        return ids

    def _read(self, id: str, read: Callable[[Path], _Read]) -> _Read:
        with self.errors():
            ref = self.ref(id)
            result = None if ref is None else ref.result().snapshot
            with self.build.context.snapshots.mounted(result) as folder:
                return read(folder)

    def read_file(self, request: gateway_pb2.ReadFileRequest) -> gateway_pb2.ReadFileResponse:
        """A file, or a range of it, of a result."""
        from .files import read_file

        place = request.Range
        bounds = (place.Offset, place.Length) if request.HasField("Range") else (0, None)
        return gateway_pb2.ReadFileResponse(
            Data=self._read(request.Ref, lambda folder: read_file(folder, request.FilePath, *bounds))
        )

    def read_dir(self, request: gateway_pb2.ReadDirRequest) -> gateway_pb2.ReadDirResponse:
        """A folder of a result."""
        from .files import read_dir

        return gateway_pb2.ReadDirResponse(
            entries=self._read(request.Ref, lambda folder: read_dir(folder, request.DirPath, request.IncludePattern))
        )

    def stat_file(self, request: gateway_pb2.StatFileRequest) -> gateway_pb2.StatFileResponse:
        """What is known of a path of a result."""
        from .files import stat_file

        return gateway_pb2.StatFileResponse(
            stat=self._read(request.Ref, lambda folder: stat_file(folder, request.Path))
        )

    def warn(self, request: gateway_pb2.WarnRequest) -> gateway_pb2.WarnResponse:
        """Hand a finding to the client."""
        self.build.reporter.warning(
            control_pb2.VertexWarning(
                vertex=request.digest,
                level=request.level or 1,
                short=request.short,
                detail=request.detail,
                url=request.url,
                info=request.info if request.HasField("info") else None,
                ranges=request.ranges,
            )
        )
        return gateway_pb2.WarnResponse()


def _with_scheme(reference: str, scheme: str) -> str:
    return reference if "://" in reference else scheme + reference


def _attributes(encoded: bytes) -> dict[str, bytes]:
    """The exporter attributes of the oldest form: JSON with values in base64."""
    import base64

    if not encoded:
        return {}
    try:
        return {str(key): base64.b64decode(value or "") for key, value in json.loads(encoded).items()}
    except (ValueError, AttributeError, TypeError):
        raise SolveError(
            "the exporter attributes of a solve are not the JSON that they should be", code=errors.INVALID_ARGUMENT
        ) from None
