"""What a build may do beyond the ordinary, since its user and the solver's owner said so (BuildKit's entitlements)."""

from collections.abc import Iterable

from ..llb.graph import Vertex
from ..llb.ops import ExecOp, NetMode, SecurityMode
from ..wire import errors
from .base import SolveError

NETWORK_HOST = "network.host"
SECURITY_INSECURE = "security.insecure"
DEVICE = "device"
KNOWN = frozenset({NETWORK_HOST, SECURITY_INSECURE, DEVICE})


def granted(requested: Iterable[str], allowed: Iterable[str] | None) -> frozenset[str]:
    """The entitlements of a build; `allowed` is what the solver's owner lets builds ask for, None everything.

    Raises:
        SolveError: for one that is not known or not allowed.
    """
    given = frozenset(requested)
    permitted = KNOWN if allowed is None else frozenset(allowed)
    for name in sorted(given):
        kind = name.partition("=")[0]
        if kind not in KNOWN:
            raise SolveError(
                f"unknown entitlement {name!r}: known are {', '.join(sorted(KNOWN))}", code=errors.INVALID_ARGUMENT
            )
        if kind not in permitted:
            raise SolveError(
                f"granting entitlement {name} is not allowed by build daemon configuration",
                code=errors.PERMISSION_DENIED,
            )
    return given


def check(vertex: Vertex, entitlements: frozenset[str]) -> None:
    """Raises SolveError for an op that does what its build was not granted, cached or not."""
    if isinstance(vertex.op, ExecOp):
        check_op(vertex.op, entitlements)


def check_op(op: ExecOp, entitlements: frozenset[str]) -> None:
    """The same for a process that is no op of a graph."""
    wanted = NETWORK_HOST if op.network is NetMode.HOST else ""
    if op.security is SecurityMode.INSECURE:
        wanted = wanted if wanted and wanted not in entitlements else SECURITY_INSECURE
    if wanted and wanted not in entitlements:
        raise SolveError(
            f"{wanted} is not allowed", hint=f"grant it with --allow {wanted}", code=errors.PERMISSION_DENIED
        )
