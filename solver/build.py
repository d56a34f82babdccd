"""One build: a definition or a frontend, the results that it asks for, and their exports."""

import base64
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ..grammar.errors import SourceError
from ..llb.bridge import BridgeError, Frontend, FrontendCall
from ..oci.platform import Platform, host, normalize
from ..wire import errors
from ..wire.pb import control_pb2, gateway_pb2, ops_pb2, policy_pb2, worker_pb2
from .base import Attestation, Cancelled, Context, Exportable, Exporter, Result, SolveError
from .gateway.bridge import Gateway
from .gateway.refs import Outcome, Ref, solve_all
from .scheduler.inflight import Inflight, Slots
from .scheduler.job import Job
from .scheduler.status import Reporter

if TYPE_CHECKING:
    from .exporters.options import LayerForm
    from .gateway.metadata import Resolver
    from .layers import Layer
    from .provenance import Options
    from .remotecache.config import CacheConfig
    from .remotecache.imported import Imported
    from .scheduler.explain import Explanation

_DEEPEST = 16
"""How many frontends may hand over to one another."""
_POLL = 0.1
KEPT = 16
"""For how many builds the explanations are kept."""
CONFIG = "containerimage.config"
PLATFORMS = "refs.platforms"


@dataclass(frozen=True, slots=True)
class Shared:
    """What all builds of one solver have in common."""

    frontends: Mapping[str, Frontend]
    inflight: Inflight = field(default_factory=Inflight)
    slots: Slots = field(default_factory=Slots)
    max_parallelism: int = 0
    explained: dict[str, list["Explanation"]] = field(default_factory=dict)
    """By the ref of each build that has ended, the latest last, what was found out about its cache."""

    def keep_explanation(self, ref: str, found: list["Explanation"]) -> None:
        """Keep what a build found out, for as many builds as `KEPT`."""
        self.explained.pop(ref, None)
        self.explained[ref] = found
        while len(self.explained) > KEPT:
            self.explained.pop(next(iter(self.explained)), None)


class CacheImport(Protocol):
    """A cache to import, in the words of either protocol."""

    @property
    def Type(self) -> str:
        """`registry`, `local` or `inline`."""

    @property
    def Attrs(self) -> Mapping[str, str]:
        """Where it is."""


class Build:
    """A build that runs. `close` it when its exports are done.

    A frontend reaches it through a `Gateway`. `context` is the one of its own work; ops get others, derived from it.
    """

    def __init__(
        self, context: Context, reporter: Reporter, shared: Shared, policy: policy_pb2.Policy | None = None
    ) -> None:
        context = replace(context, solve=lambda definition, cancel: self.ref(definition).result(cancel))
        self.context = context
        self.reporter = reporter
        self.shared = shared
        self.job = Job(context, reporter, shared.inflight, shared.slots, shared.max_parallelism)
        self._policies = [policy] if policy is not None else []
        self._lock = threading.Lock()
        self._import_lock = threading.Lock()
        self._imports: dict[str, Imported | None] = {}
        self._resolver: Resolver | None = None
        self.started = time.time_ns()
        self.invocation = secrets.token_hex(12)
        """What provenance calls this build."""
        self._finished = 0

    def close(self) -> None:
        """Stop what still runs and let go of the results."""
        self.job.close()

    def finished(self) -> int:
        """When the results were there: the first time that this was asked for, in nanoseconds."""
        with self._lock:
            self._finished = self._finished or time.time_ns()
            return self._finished

    def local_names(self) -> list[str]:
        """The client's folders that were read."""
        names = [op.identifier.partition("://")[2] for op in self.job.sources() if op.identifier.startswith("local://")]
        return list(dict.fromkeys(names))

    def worker(self) -> worker_pb2.WorkerRecord:
        """The worker that the build runs on."""
        from .gateway.caps import worker_record

        return worker_record(self.context.root, self.context.snapshots.mode)

    def ref(
        self,
        definition: ops_pb2.Definition,
        *,
        imports: Sequence[gateway_pb2.CacheOptionsEntry] = (),
        policies: Sequence[policy_pb2.Policy] = (),
    ) -> Ref:
        """A lazy result of a definition. Raises SolveError where it can't be loaded."""
        self.use_imports(imports)
        found = [*self._policies, *policies]
        if found:
            from .policy import converted, mapper

            apply = mapper(found)
            if apply is not None:
                definition = converted(definition, apply)
        return Ref(self.job, definition, self.job.load(definition))

    def use_imports(self, entries: Iterable[CacheImport]) -> None:
        """Look into these caches too, from now on; one that can't be loaded is shown as such, and left out.

        Raises:
            SolveError: for a type that is not supported.
        """
        wanted = {json.dumps([entry.Type, dict(entry.Attrs)], sort_keys=True): entry for entry in entries}
        if not wanted:
            return
        from .remotecache import find
        from .remotecache.imported import RemoteCache

        for entry in wanted.values():
            find(entry.Type)
        with self._import_lock:
            new = {key: entry for key, entry in wanted.items() if key not in self._imports}
            if new:
                from concurrent.futures import ThreadPoolExecutor

                with ThreadPoolExecutor(len(new)) as pool:
                    self._imports.update(zip(new, pool.map(self._import, new.values()), strict=True))
                self.job.use(RemoteCache([found for found in self._imports.values() if found is not None]))

    def _import(self, entry: CacheImport) -> "Imported | None":
        from .remotecache import find

        attrs = dict(entry.Attrs)
        name = attrs.get("ref") or attrs.get("src") or entry.Type
        try:
            with self.reporter.step(f"importing cache manifest from {name}") as digest:
                return find(entry.Type).load(attrs, with_progress(self.context, self.reporter, digest))
        except (SolveError, OSError):
            return None

    def source_meta(self, request: gateway_pb2.ResolveSourceMetaRequest) -> gateway_pb2.ResolveSourceMetaResponse:
        """What is known of a source, once the policy has had its say. Raises SolveError."""
        from .gateway.metadata import Resolver, platform_of

        with self._lock:
            if self._resolver is None:
                self._resolver = Resolver(self.context, self.reporter)
            resolver = self._resolver
        source = ops_pb2.SourceOp()
        source.CopyFrom(request.Source)
        found = [*self._policies, *request.SourcePolicies]
        if found:
            from .policy import mapper

            apply = mapper(found)
            if apply is not None:
                apply(source)
        platform = platform_of(request.Platform) if request.HasField("Platform") else None
        return resolver.resolve(source, platform, request)

    def frontend(
        self,
        name: str,
        opts: Mapping[str, str],
        inputs: Mapping[str, ops_pb2.Definition],
        *,
        imports: Sequence[gateway_pb2.CacheOptionsEntry] = (),
        policies: Sequence[policy_pb2.Policy] = (),
        depth: int = 0,
    ) -> Outcome:
        """What a frontend makes; `depth` counts the frontends that have handed over to it.

        Raises:
            SolveError: for a frontend that is not known, or where the build fails in what it asks for.
            SourceError: for what is wrong in a user's file.
        """
        self.use_imports(imports)
        if policies:
            raise SolveError("source policies for a nested frontend are not supported", code=errors.UNIMPLEMENTED)
        options = dict(opts)
        if name == "gateway.v0" and options.get("source") == "dockerfile.v0" and not _replaced(options):
            name = options.pop("source")
        frontend = self.shared.frontends.get(name)
        if frontend is None:
            known = ", ".join(sorted(self.shared.frontends)) or "none"
            raise SolveError(f"the frontend {name!r} is not supported; there are: {known}", code=errors.UNIMPLEMENTED)
        if depth > _DEEPEST:
            raise SolveError(f"more than {_DEEPEST} frontends hand over to one another", code=errors.INVALID_ARGUMENT)
        outcome = self.run_frontend(frontend, options, inputs, depth)
        for ref in outcome.every_ref():
            if ref.request is None:
                ref.request = (name, options)
        return outcome

    def run_frontend(
        self,
        frontend: Frontend,
        opts: Mapping[str, str],
        inputs: Mapping[str, ops_pb2.Definition],
        depth: int = 0,
    ) -> Outcome:
        """What a frontend makes, with a bridge of its own. Raises as `frontend` does."""
        gateway = Gateway(self, inputs, depth)
        try:
            result = frontend(gateway, FrontendCall(opts, self.context.session.id))
            return gateway.final or gateway.outcome(result)
        except BridgeError as error:
            raise _cause(error) from error
        finally:
            gateway.close()


def _replaced(options: Mapping[str, str]) -> bool:
    return any(key.partition("::")[0] == "context:dockerfile.v0" for key in options)


def _cause(error: BridgeError) -> Exception:
    """What a frontend's failed call was about: its own cause, or what its status says."""
    cause = error.__cause__
    if isinstance(cause, SolveError | SourceError | Cancelled):
        return cause
    if error.status:
        from ..wire.pb import rpc_status_pb2
        from .errdefs import from_status

        return from_status(rpc_status_pb2.Status.FromString(error.status))
    return SolveError(str(error), code=error.code)


def check_request(request: control_pb2.SolveRequest) -> None:
    """Raises SolveError for what a request asks for and this solver can't do."""
    if request.ExporterDeprecated and request.Exporters:
        raise SolveError("a request names its exporters in both forms", code=errors.INVALID_ARGUMENT)
    if request.SourcePolicySession:
        raise SolveError("source policies that a session decides are not supported", code=errors.UNIMPLEMENTED)
    if request.ProxyNetwork:
        raise SolveError("a network through a proxy is not supported", code=errors.UNIMPLEMENTED)
    cache = request.Cache
    if cache.ExportRefDeprecated or cache.ImportRefsDeprecated:
        raise SolveError(
            "the old form of naming caches is not supported: use Imports and Exports", code=errors.INVALID_ARGUMENT
        )
    if cache.Imports or cache.Exports:
        from .remotecache import find
        from .remotecache.export import mode_of

        for entry in (*cache.Imports, *cache.Exports):
            find(entry.Type)
        for entry in cache.Exports:
            mode_of(entry.Attrs)
    if getattr(request.Definition, "def") and request.Frontend:
        raise SolveError("a request has both a definition and a frontend", code=errors.INVALID_ARGUMENT)


def exporters_of(request: control_pb2.SolveRequest) -> list[tuple[control_pb2.Exporter, Exporter]]:
    """The request's exporters. Raises SolveError for a type that is not known."""
    entries = [control_pb2.Exporter(Type=entry.Type, Attrs=dict(entry.Attrs)) for entry in request.Exporters]
    if request.ExporterDeprecated:
        entries.append(
            control_pb2.Exporter(Type=request.ExporterDeprecated, Attrs=dict(request.ExporterAttrsDeprecated))
        )
    if not entries:
        return []
    epoch = request.FrontendAttrs.get("build-arg:SOURCE_DATE_EPOCH", "")
    for entry in entries if epoch else ():
        if "source-date-epoch" not in entry.Attrs:
            entry.Attrs["source-date-epoch"] = epoch
    from .exporters import find

    return [(entry, find(entry.Type)) for entry in entries]


def run(
    request: control_pb2.SolveRequest,
    context: Context,
    reporter: Reporter,
    shared: Shared,
    client_frontend: Frontend | None = None,
    on_result: "Callable[[Build, Outcome], None] | None" = None,
) -> control_pb2.SolveResponse:
    """A request to its end. `client_frontend` stands for the client, where a request names neither a definition nor
    a frontend: it waits until the client has driven the build over the bridge and returned its result. `on_result` is
    called at the end of a build that went well, while its results are still held.

    Raises:
        SolveError, SourceError, Cancelled: where it fails.
    """
    check_request(request)
    exporters = exporters_of(request)
    attests = _attests(request)
    build = Build(context, reporter, shared, request.SourcePolicy if request.HasField("SourcePolicy") else None)
    try:
        build.use_imports(request.Cache.Imports)
        outcome = _outcome(build, request, client_frontend)
        context.check()
        result = exportable(outcome)
        caches = list(request.Cache.Exports)
        if any(entry.Type == "inline" for entry in caches):
            result = _with_inline_cache(build, outcome, result, (entry for entry, _ in exporters))
        if attests is not None:
            result = _with_provenance(build, outcome, result, attests)
        response = control_pb2.SolveResponse(ExporterResponse=_told(request, outcome))
        for told in _export(exporters, result, build):
            response.ExporterResponse.update(told)
        response.ExporterResponse.update(_export_caches(build, outcome, result, caches))
        if reporter.broken is not None:
            raise reporter.broken
        if on_result is not None:
            on_result(build, outcome)
        return response
    finally:
        build.close()
        shared.keep_explanation(request.Ref, build.job.explain())


def _attests(request: control_pb2.SolveRequest) -> "Options | None":
    """The provenance that a request asks for. Raises SolveError."""
    if not any(key.startswith(("attest:", "build-arg:BUILDKIT_ATTEST_")) for key in request.FrontendAttrs):
        return None
    from .provenance import Options, requested

    wanted = requested(request.FrontendAttrs).get("provenance")
    return None if wanted is None else Options.of(wanted)


def _with_provenance(build: Build, outcome: Outcome, result: Exportable, options: "Options") -> Exportable:
    from .provenance import attest

    attestations = {key: list(found) for key, found in result.attestations.items()}
    for key, ref in outcome.refs.items():
        made = attest(build, ref, options)
        if made is not None:
            attestations.setdefault(key, []).append(made)
    return replace(result, attestations=attestations)


def definition(
    request: control_pb2.SolveRequest, context: Context, reporter: Reporter, shared: Shared
) -> ops_pb2.Definition:
    """The graph that a request's frontend makes, without solving it but for what the frontend must read: the first
    platform's where there are several. Raises as `run` does."""
    check_request(request)
    build = Build(context, reporter, shared, request.SourcePolicy if request.HasField("SourcePolicy") else None)
    try:
        refs = [ref for ref in _outcome(build, request, None).refs.values() if ref is not None]
        return refs[0].definition if refs else ops_pb2.Definition()
    finally:
        build.close()


def _outcome(build: Build, request: control_pb2.SolveRequest, client_frontend: Frontend | None) -> Outcome:
    if request.Frontend:
        return build.frontend(request.Frontend, request.FrontendAttrs, request.FrontendInputs)
    if getattr(request.Definition, "def"):
        return Outcome({"": build.ref(request.Definition)})
    if client_frontend is not None and not request.HasField("Definition"):
        return build.run_frontend(client_frontend, request.FrontendAttrs, request.FrontendInputs)
    return Outcome()


def _told(request: control_pb2.SolveRequest, outcome: Outcome) -> dict[str, str]:
    """The frontend's metadata that the client is told: as BuildKit, and the answer to a subrequest."""
    wanted: tuple[str, ...] = ("frontend.",)
    if request.FrontendAttrs.get("requestid"):
        wanted += ("result.", "version")
    return {key: value.decode(errors="replace") for key, value in outcome.metadata.items() if key.startswith(wanted)}


def exportable(outcome: Outcome) -> Exportable:
    """The results of an outcome, all solved at the same time, with what the frontend said about them.

    Raises:
        SolveError: where a vertex fails, or the frontend's own account of the platforms is broken.
        Cancelled: where the build was stopped.
    """
    refs = outcome.every_ref()
    results: dict[Ref | None, Result] = {None: Result(None)}
    results.update(zip(refs, solve_all(refs) if refs else [], strict=True))
    metadata = outcome.metadata
    platforms = _platforms(outcome)
    attestations = {
        key: [
            Attestation(
                kind="intoto" if one.kind == gateway_pb2.InToto else "bundle",
                result=results[ref],
                path=one.path,
                predicate_type=one.inTotoPredicateType,
                subjects=list(one.inTotoSubjects),
                metadata=dict(one.metadata),
            )
            for one, ref in entries
        ]
        for key, entries in outcome.attestations.items()
    }
    found: dict[str, tuple[Result, bytes | None]] = {}
    for key, ref in outcome.refs.items():
        config = metadata.get(f"{CONFIG}/{key}") if key else metadata.get(CONFIG)
        if config is None and len(outcome.refs) == 1:
            name = f"{CONFIG}/{platforms[0][0]}" if platforms and platforms[0][0] else CONFIG
            config = metadata.get(name)
        found[key] = (results[ref], config)
    if set(found) == {""}:
        only = platforms[0][1] if platforms else _platform_of_config(found[""][1])
        if found[""][1] is None and platforms:
            found[""] = (found[""][0], metadata.get(f"{CONFIG}/{platforms[0][0]}"))
        platforms = [("", only)] if only is not None else []
    elif platforms and (missing := {id for id, _ in platforms} - set(found)):
        raise SolveError(f"the frontend gave no result for the platform {min(missing)}", code=errors.INVALID_ARGUMENT)
    return Exportable(found, metadata, platforms, attestations)


def _platforms(outcome: Outcome) -> list[tuple[str, Platform]]:
    text = outcome.metadata.get(PLATFORMS)
    if text is None:
        if "" in outcome.refs or not outcome.refs:
            return []
        from ..oci.platform import PlatformError, parse

        try:
            return [(key, parse(key)) for key in outcome.refs]
        except PlatformError as error:
            raise SolveError(
                f"a frontend's result without the key {PLATFORMS}: {error}", code=errors.INVALID_ARGUMENT
            ) from None
    try:
        entries = json.loads(text)["Platforms"] or []
        return [(str(entry["ID"]), _platform(entry["Platform"])) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SolveError(
            f"the frontend's {PLATFORMS} is not the JSON that it should be", code=errors.INVALID_ARGUMENT
        ) from None


def _platform(value: Mapping[str, Any]) -> Platform:
    return normalize(
        Platform(
            str(value.get("os", "")),
            str(value.get("architecture", "")),
            str(value.get("variant", "")),
            str(value.get("os.version", "")),
            tuple(map(str, value.get("os.features") or ())),
        )
    )


def _platform_of_config(config: bytes | None) -> Platform | None:
    if config is None:
        return None
    try:
        found = _platform(json.loads(config))
    except (ValueError, TypeError, AttributeError):
        raise SolveError(
            f"the frontend's {CONFIG} is not the JSON that it should be", code=errors.INVALID_ARGUMENT
        ) from None
    return found if found.os and found.architecture else host()


_NAMES = {
    "image": "exporting to image",
    "oci": "exporting to oci image format",
    "docker": "exporting to docker image format",
    "local": "exporting to client directory",
    "tar": "exporting to client tarball",
}


def _export(
    exporters: Sequence[tuple[control_pb2.Exporter, Exporter]], result: Exportable, build: Build
) -> list[dict[str, str]]:
    """Run the exporters, several at the same time; what each one says, in their order."""
    stop = build.context.cancel if len(exporters) < 2 else threading.Event()

    def export(number: int) -> dict[str, str]:
        entry, exporter = exporters[number]
        name = _NAMES.get(entry.Type, f"exporting to {entry.Type}")
        with build.reporter.step(name, f"{build.context.session.id}-export-{number}") as digest:
            context = with_progress(build.context, build.reporter, digest, stop)
            context.check()
            return exporter.export(result, str(number), dict(entry.Attrs), context)

    if len(exporters) < 2:
        return [export(number) for number in range(len(exporters))]
    return _together([partial(export, number) for number in range(len(exporters))], stop, build.context)


def _together(
    calls: Sequence[Callable[[], dict[str, str]]], stop: threading.Event, context: Context
) -> list[dict[str, str]]:
    """Call all at the same time; the first error stops the others and is raised once they have ended."""
    answers: list[dict[str, str]] = [{} for _ in calls]
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            answers[number] = calls[number]()
        except BaseException as error:
            errors.append(error)
            stop.set()

    threads = [threading.Thread(target=work, args=(number,), name="export") for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_POLL)
            if context.cancel.is_set():
                stop.set()
    if errors:
        raise next((error for error in errors if not isinstance(error, Cancelled)), errors[0])
    return answers


def _keyed(build: Build, outcome: Outcome) -> list[tuple[str, int]]:
    return build.job.keyed([ref.head for ref in outcome.refs.values() if ref is not None and ref.head is not None])


def _with_inline_cache(
    build: Build, outcome: Outcome, result: Exportable, exporters: Iterable[control_pb2.Exporter]
) -> Exportable:
    """The result with a cache for the config of each of its images."""
    from .exporters.blobs import layers_of
    from .exporters.options import layer_form
    from .remotecache.export import collect
    from .remotecache.inline import config_field

    images = [entry for entry in exporters if entry.Type in ("image", "oci", "docker")]
    form = layer_form(dict(images[0].Attrs) if images else {})
    metadata = dict(result.metadata)
    keyed = _keyed(build, outcome)
    with build.reporter.step("preparing layers for inline cache") as digest:
        context = with_progress(build.context, build.reporter, digest)
        for key, (found, _) in result.refs.items():
            config, _ = collect(keyed, [found.snapshot], "min", form, context)
            text = config_field(config, [layer.diff_id for layer in layers_of(found.snapshot, form, context)])
            if text:
                name = f"containerimage.inlinecache/{key}" if key else "containerimage.inlinecache"
                metadata[name] = base64.b64decode(text)
    return replace(result, metadata=metadata)


_CACHES = {"registry": "exporting cache to registry", "local": "exporting cache to client directory"}


def _export_caches(
    build: Build, outcome: Outcome, result: Exportable, entries: Sequence[control_pb2.CacheOptionsEntry]
) -> dict[str, str]:
    """Write the caches that are kept for themselves; what the client is told."""
    wanted = [entry for entry in entries if entry.Type != "inline"]
    if not wanted:
        return {}
    from .remotecache.export import collect, export

    keyed = _keyed(build, outcome)
    heads = [found.snapshot for found, _ in result.refs.values()]
    out: dict[str, str] = {}
    for number, entry in enumerate(wanted):
        with build.reporter.step(_CACHES[entry.Type], f"{build.context.session.id}-cache-{number}") as digest:
            context = with_progress(build.context, build.reporter, digest)

            def collected(
                mode: str, form: "LayerForm", context: Context = context
            ) -> "tuple[CacheConfig, list[Layer]]":
                return collect(keyed, heads, mode, form, context)

            out.update(export(entry.Type, dict(entry.Attrs), collected, context))
    return out


def with_progress(context: Context, reporter: Reporter, digest: str, cancel: threading.Event | None = None) -> Context:
    """A context whose logs and progress are those of a step."""
    return replace(
        context,
        cancel=cancel or context.cancel,
        log=lambda stream, data: reporter.log(digest, stream, data),
        progress=lambda name, current, total: reporter.progress(digest, name, current, total),
    )
