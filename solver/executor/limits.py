"""Resource limits of a process (setrlimit(2))."""

import resource
from collections.abc import Sequence

from ...llb.ops import Ulimit
from .base import ExecError
from .confinement import own_capabilities
from .ids import standing


def can_raise() -> bool:
    """Whether limits can be set for any process, and over what they are now."""
    return standing().real_root and "CAP_SYS_RESOURCE" in own_capabilities()


def check_ulimits(limits: Sequence[Ulimit]) -> None:
    """Raises ExecError for a limit that is unknown or can't be given here."""
    for limit in limits:
        hard = resource.getrlimit(_number(limit))[1]
        if 0 <= limit.hard < limit.soft or (limit.soft < 0 <= limit.hard):
            raise ExecError(f"ulimit {limit.name}: the soft limit {limit.soft} is over the hard limit {limit.hard}")
        over = hard != resource.RLIM_INFINITY and (limit.hard < 0 or limit.hard > hard)
        if over and not can_raise():
            raise ExecError(f"ulimit {limit.name}={limit.soft}:{limit.hard}: this machine allows at most {hard}")


def set_ulimits(pid: int, limits: Sequence[Ulimit]) -> None:
    """Give a process its limits. Raises OSError."""
    for limit in limits:
        resource.prlimit(pid, _number(limit), (_value(limit.soft), _value(limit.hard)))


def options(limits: Sequence[Ulimit]) -> list[str]:
    """The limits for util-linux's prlimit."""
    return [f"--{limit.name}={_text(limit.soft)}:{_text(limit.hard)}" for limit in limits]


def _text(limit: int) -> str:
    return "unlimited" if limit < 0 else str(limit)


def _value(limit: int) -> int:
    return resource.RLIM_INFINITY if limit < 0 else limit


def _number(limit: Ulimit) -> int:
    found = getattr(resource, f"RLIMIT_{limit.name.upper()}", None)
    if not isinstance(found, int):
        raise ExecError(f"there is no ulimit {limit.name!r}")
    return found
