"""The Dockerfile frontend: reads the file through the bridge, converts it for every platform, solves the results."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from ...grammar.dockerfile.directives import detect_syntax
from ...grammar.errors import SourceError, not_utf8
from ...llb.bridge import Bridge, BridgeError, FrontendCall
from ...llb.caps import CapError
from ...llb.graph import Output
from ...llb.marshal import SourceFile
from ...oci.platform import Platform, format_all, host, normalize
from ...wire.pb import gateway_pb2
from ..gateway.client import Client, ResolvedElsewhere
from ..gateway.status import FrontendError, line_ranges
from ..gateway.together import together
from ..lint.linter import Warning
from . import forward, named_contexts
from .begin import Begun, begin, unsupported
from .context import BuildContext
from .convert import Converted, convert
from .gojson import dumps
from .options import ConvertOptions, NamedContext, ResolvedImage
from .settings import Settings

COMPATIBLE = ("docker/dockerfile", "docker/dockerfile-upstream")
"""Frontend images that this one stands in for where it is built in."""


def dockerfile_frontend(
    bridge: Bridge, call: FrontendCall, compatible: Sequence[str] = COMPATIBLE
) -> gateway_pb2.Result:
    """Build the Dockerfile that the options name.

    A file that names another frontend than this one or those in `compatible` is handed over to it.

    Raises:
        SourceError: for whatever is wrong in it or in the options; a FrontendError where the file was read.
        BridgeError, CapError: for a call that failed, and for what the solver can't do.
    """
    return build(begin(bridge, call), compatible)


def build(begun: Begun, compatible: Sequence[str]) -> gateway_pb2.Result:
    """Build a file that has been read; for the rest as `dockerfile_frontend`."""
    try:
        handed = forward.hand_over(begun.client, begun.file, compatible)
        if handed is not None:
            return handed
        if begun.missing:
            raise unsupported(begun.missing)
        return _Build(begun).run()
    except FrontendError:
        raise
    except SourceError as error:
        raise FrontendError(error, begun.file) from error.__cause__


class _Resolver:
    """What the conversion asks, answered through the bridge."""

    def __init__(self, client: Client, context: BuildContext, mode: str) -> None:
        self._client = client
        self._context = context
        self._mode = mode

    def image(self, reference: str, platform: Platform, log_name: str) -> ResolvedImage:
        try:
            found = self._client.image(reference, platform, self._mode, log_name)
        except ResolvedElsewhere as moved:
            raise SourceError(str(moved)) from None
        return ResolvedImage(found.reference, found.digest, found.config)

    def prefetch(self, images: Sequence[tuple[str, Platform, str]]) -> None:
        calls: list[Callable[[], object]] = []
        for name, platform, log_name in images:
            kind = named_contexts.kind_of(self._client.opts, name, platform)
            if not kind:
                calls.append(partial(_quietly, self.image, name, platform, log_name))
            elif kind in named_contexts.IMAGES:
                calls.append(partial(_quietly, self.named_context, name, platform, list))
        if calls:
            # The ignore file is needed a moment later, and comes from elsewhere.
            calls.append(partial(_quietly, self.ignored))
            together(calls)

    def named_context(self, name: str, platform: Platform, paths: Callable[[], Sequence[str]]) -> NamedContext | None:
        return named_contexts.find(self._context, name, platform, self._mode, paths)

    def main_context(self, follow_paths: Sequence[str]) -> Output | None:
        return self._context.context(follow_paths)

    def ignored(self) -> Sequence[str]:
        return self._context.ignored()

    def epoch(self, source: Output | None, log_name: str) -> int | None:
        from .epoch import epoch_of

        return epoch_of(self._client, source, log_name)


def _quietly(call: Callable[..., object], *args: object) -> None:
    """Ask for something that is asked for again, which is when a failure is told."""
    with suppress(SourceError, BridgeError, CapError):
        call(*args)


class _Build:
    """One build of one file."""

    def __init__(self, begun: Begun) -> None:
        client, settings, context, file = begun.client, begun.settings, begun.context, begun.file
        self.client = client
        self.settings = settings
        self.file = file
        self.vertex = begun.vertex
        try:
            self.text = file.data.decode()
        except UnicodeDecodeError as error:
            raise SourceError(not_utf8(file.filename, error)) from None
        lines = None
        if _may_be_template(file):
            from ..template.render import is_template, render

            if is_template(self.text, file.filename):
                rendered = render(self.text, settings.build_args, context.read_text)
                self.text, lines = rendered.text, rendered.line
        self.resolver = _Resolver(client, context, settings.resolve_mode)
        self.options = replace(_convert_options(client, settings, file, self.warn), lines=lines)

    def run(self) -> gateway_pb2.Result:
        """The result of the build, or the answer to the question that the options ask."""
        if "requestid" in self.client.opts:
            from .requests import answer

            return answer(self.client.opts["requestid"], self.text, self.file, self.options, self.resolver)
        return self.build()

    def warn(self, warning: Warning) -> None:
        """Tell the client of a lint warning."""
        line = f" (line {warning.start})" if warning.start > 0 else ""
        self.client.warn(
            gateway_pb2.WarnRequest(
                digest=self.vertex,
                level=1,
                short=f"{warning.rule.name}: {warning.message}{line}".encode(),
                detail=[warning.rule.description.encode()],
                url=warning.rule.url,
                info=self.file.to_pb(),
                ranges=line_ranges(warning.start, warning.end) if warning.start > 0 else [],
            )
        )

    def build(self) -> gateway_pb2.Result:
        """Convert for every platform and solve."""
        scanner = None
        if self.settings.sbom is not None:
            from .sbom import Scanner

            scanner = Scanner(
                self.client, self.settings.sbom, self.options.build_platforms[0], self.settings.resolve_mode
            )
        targets: list[Platform | None] = [*self.settings.platforms] or [None]
        built = together([partial(self._one, number, platform) for number, platform in enumerate(targets)])
        result = gateway_pb2.Result()
        multi = self.settings.multi_platform
        platforms = []
        for target, (converted, ref) in zip(targets, built, strict=True):
            name, shown = _exported(target or host(), converted.image.platform)
            suffix = f"/{name}" if multi else ""
            if multi:
                result.refs.refs[name].id = ref
            else:
                result.ref.id = ref
            result.metadata[f"containerimage.config{suffix}"] = converted.image.to_json()
            if converted.base_config:
                result.metadata[f"containerimage.base.config{suffix}"] = converted.base_config
            if converted.epoch is not None:
                result.metadata[f"source.date.epoch{suffix}"] = str(converted.epoch).encode()
            platforms.append({"ID": name, "Platform": shown})
            if scanner is not None:
                result.attestations[name].attestation.append(scanner.scan(name, converted))
        result.metadata["refs.platforms"] = dumps({"Platforms": platforms})
        return result

    def _one(self, number: int, platform: Platform | None) -> tuple[Converted, str]:
        options = replace(self.options, platform=platform)
        if number:
            options = replace(options, warn=lambda warning: None)
        converted = convert(self.text, options, self.resolver, self.file)
        return converted, self.client.solve_one(converted.definition(), cache_imports=self.settings.cache_imports)


def _may_be_template(file: SourceFile) -> bool:
    """Whether a file is worth the import of what can tell for sure that it is a template."""
    return file.filename.endswith((".j2", ".jinja2")) or (b"brickyard" in file.data and b"template" in file.data)


def _is_labs(client: Client, file: SourceFile) -> bool:
    """Whether the frontend was named by a tag of the labs channel."""
    named = client.opts.get("cmdline") or client.opts.get("source") or client.opts.get("build-arg:BUILDKIT_SYNTAX")
    if not named:
        found = detect_syntax(file.data.decode(errors="replace"))
        named = found[0] if found is not None else ""
    tag = named.partition(" ")[0].partition("@")[0].rpartition("/")[2].partition(":")[2]
    return tag == "labs" or tag.endswith("-labs")


def _convert_options(
    client: Client, settings: Settings, file: SourceFile, warn: Callable[[Warning], None]
) -> ConvertOptions:
    return ConvertOptions(
        target=settings.target,
        build_platforms=client.build_platforms[:1] or [host()],
        build_args=settings.build_args,
        labels=settings.labels,
        multi_platform=settings.multi_platform,
        cache_id_namespace=settings.cache_id_namespace,
        network=settings.network,
        hostname=settings.hostname,
        extra_hosts=settings.extra_hosts,
        ulimits=settings.ulimits,
        shm_size=settings.shm_size,
        cgroup_parent=settings.cgroup_parent,
        resources=settings.resources,
        resolve_mode=settings.resolve_mode,
        no_cache=settings.without_cache,
        warn=warn,
        checks=settings.checks,
        caps=client.llb_caps,
        labs=_is_labs(client, file),
        filename=file.filename,
        context_names=[key.removeprefix("context:") for key in client.opts if key.startswith("context:")],
    )


def _exported(platform: Platform, image: Platform) -> tuple[str, dict[str, object]]:
    """A platform's name, and how `refs.platforms` lists it: a Windows one is completed from the image."""
    platform = normalize(platform)
    name = format_all(platform)
    if platform.os == "windows" == image.os:
        platform = replace(
            platform,
            os_version=platform.os_version or image.os_version,
            os_features=platform.os_features or image.os_features,
        )
    shown: dict[str, object] = {"architecture": platform.architecture, "os": platform.os}
    shown |= {"os.version": platform.os_version} if platform.os_version else {}
    shown |= {"os.features": list(platform.os_features)} if platform.os_features else {}
    shown |= {"variant": platform.variant} if platform.variant else {}
    return name, shown
