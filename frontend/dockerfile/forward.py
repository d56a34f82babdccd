"""Handing a file over to the frontend image that it names."""

from collections.abc import Sequence

from ...grammar.dockerfile.directives import detect_syntax
from ...grammar.errors import SourceError
from ...llb.bridge import BridgeError
from ...llb.marshal import SourceFile
from ...oci.reference import InvalidReference, parse
from ...wire.errors import read_details
from ...wire.pb import errdefs_pb2, gateway_pb2, rpc_status_pb2
from ..gateway.client import Client

_OWN = "brickyard/frontend"
_ARG = "build-arg:BUILDKIT_SYNTAX"


def hand_over(client: Client, file: SourceFile, compatible: Sequence[str]) -> gateway_pb2.Result | None:
    """The other frontend's result; None where the file is for this one.

    `BUILDKIT_SYNTAX` wins over the file. A frontend that was started for a file, which the option `cmdline` tells,
    keeps it.

    Raises:
        SourceError, BridgeError: where the other frontend fails.
    """
    if "cmdline" in client.opts:
        return None
    location = None
    given = client.opts.get(_ARG)
    if given is not None:
        cmdline = given
        image = given.strip().partition(" ")[0]
    else:
        found = detect_syntax(file.data.decode(errors="replace"))
        if found is None:
            return None
        image, cmdline, location = found
    if not image or is_own(image, compatible):
        return None
    opts = {**client.opts, "cmdline": cmdline, "source": image}
    try:
        return client.solve(frontend="gateway.v0", opts=opts, inputs=client.inputs())
    except BridgeError as error:
        if _has_place(error):
            raise
        if location is None:
            raise BridgeError(f"failed with {_ARG} = {cmdline}: {error}", error.code, error.status) from None
        raise SourceError(str(error), location) from error


def is_own(image: str, compatible: Sequence[str]) -> bool:
    """Whether a frontend image is this one, or one that it stands in for."""
    try:
        name = parse(image).trimmed()
    except InvalidReference:
        return False
    return f"/{name.name}".endswith(f"/{_OWN}") or (name.domain == "docker.io" and name.path in compatible)


def _has_place(error: BridgeError) -> bool:
    if not error.status:
        return False
    status = rpc_status_pb2.Status()
    try:
        status.ParseFromString(error.status)
    except ValueError:
        return False
    return any(isinstance(detail, errdefs_pb2.Source) for detail in read_details(status))
