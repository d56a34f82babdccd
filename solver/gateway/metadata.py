"""What is known of a source before it is fetched (`ResolveSourceMeta`), asked once a build."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from ...oci.platform import Platform, normalize
from ...wire import errors
from ...wire.pb import gateway_pb2, ops_pb2
from ..base import Context, SolveError

if TYPE_CHECKING:
    from ..scheduler.status import Reporter


def platform_of(message: ops_pb2.Platform) -> Platform:
    """A platform off the wire, in its normal form."""
    return normalize(
        Platform(message.OS, message.Architecture, message.Variant, message.OSVersion, tuple(message.OSFeatures))
    )


class Resolver:
    """Asks sources. May be used by several threads; equal questions are asked once."""

    def __init__(self, context: Context, reporter: "Reporter") -> None:
        self._context = context
        self._reporter = reporter
        self._lock = threading.Lock()
        self._known: dict[tuple[str, ...], Future[gateway_pb2.ResolveSourceMetaResponse]] = {}

    def resolve(
        self, source: ops_pb2.SourceOp, platform: Platform | None, request: gateway_pb2.ResolveSourceMetaRequest
    ) -> gateway_pb2.ResolveSourceMetaResponse:
        """What is known of a source.

        Raises:
            SolveError: where it is not there, can't be reached, or is of a kind that nothing is known of before.
        """
        attributes = (f"{key}={value}" for key, value in sorted(source.attrs.items()))
        key = (
            source.identifier, *attributes, str(platform), request.ResolveMode,
            str(request.Image.NoConfig), str(request.Git.ReturnObject),
        )  # fmt: skip
        with self._lock:
            found = self._known.get(key)
            mine = found is None
            if found is None:
                found = self._known[key] = Future()
        if mine:
            name = request.LogName or f"resolve image config for {source.identifier}"
            try:
                with self._reporter.step(name, "\0".join(key)) as digest:
                    found.set_result(self._ask(source, platform, request, digest))
            except BaseException as error:
                with self._lock:
                    del self._known[key]
                found.set_exception(error)
        return found.result()

    def _ask(
        self,
        source: ops_pb2.SourceOp,
        platform: Platform | None,
        request: gateway_pb2.ResolveSourceMetaRequest,
        digest: str,
    ) -> gateway_pb2.ResolveSourceMetaResponse:
        from dataclasses import replace

        context = replace(
            self._context,
            log=lambda stream, data: self._reporter.log(digest, stream, data),
            progress=lambda name, current, total: self._reporter.progress(digest, name, current, total),
        )
        scheme = source.identifier.partition("://")[0]
        ask = _SCHEMES.get(scheme)
        if ask is None:
            raise SolveError(
                f"nothing is known of {source.identifier} before it is fetched", code=errors.INVALID_ARGUMENT
            )
        if request.Image.AttestationChain or request.Image.ResolveAttestations:
            raise SolveError("attestations of images can't be resolved by this solver", code=errors.UNIMPLEMENTED)
        response = gateway_pb2.ResolveSourceMetaResponse(Source=source)
        ask(source, platform, request, context, response)
        return response


_Ask = Callable[
    [
        ops_pb2.SourceOp,
        Platform | None,
        gateway_pb2.ResolveSourceMetaRequest,
        Context,
        gateway_pb2.ResolveSourceMetaResponse,
    ],
    None,
]


def _image(
    source: ops_pb2.SourceOp,
    platform: Platform | None,
    request: gateway_pb2.ResolveSourceMetaRequest,
    context: Context,
    response: gateway_pb2.ResolveSourceMetaResponse,
) -> None:
    from ..sources import image

    reference = source.identifier.removeprefix("docker-image://")
    mode = request.ResolveMode or source.attrs.get("image.resolvemode", "")
    pinned, digest, config = image.resolve_config(reference, platform, mode, context)
    response.Source.identifier = f"docker-image://{pinned}"
    response.Image.Digest = digest
    if not request.Image.NoConfig:
        response.Image.Config = config


def _oci_layout(
    source: ops_pb2.SourceOp,
    platform: Platform | None,
    request: gateway_pb2.ResolveSourceMetaRequest,
    context: Context,
    response: gateway_pb2.ResolveSourceMetaResponse,
) -> None:
    from ..sources import oci_layout

    _, digest, config = oci_layout.resolve_config(source.identifier, platform, context, source.attrs)
    response.Image.Digest = digest
    if not request.Image.NoConfig:
        response.Image.Config = config


def _git(
    source: ops_pb2.SourceOp,
    platform: Platform | None,
    request: gateway_pb2.ResolveSourceMetaRequest,
    context: Context,
    response: gateway_pb2.ResolveSourceMetaResponse,
) -> None:
    from ..sources import git

    git.resolve_meta(source, request.Git.ReturnObject, context, response.Git)


def _http(
    source: ops_pb2.SourceOp,
    platform: Platform | None,
    request: gateway_pb2.ResolveSourceMetaRequest,
    context: Context,
    response: gateway_pb2.ResolveSourceMetaResponse,
) -> None:
    from ..sources import http

    wanted = request.HTTP.ChecksumRequest if request.HTTP.HasField("ChecksumRequest") else None
    http.resolve_meta(source, context, response.HTTP, wanted)


_SCHEMES: dict[str, _Ask] = {
    "docker-image": _image,
    "oci-layout": _oci_layout,
    "git": _git,
    "http": _http,
    "https": _http,
}
