"""The bundled solver, opened on the state folder that the user named."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..client.errors import ClientError
from ..client.solver import Solver
from .flags import Flag, Parsed
from .interrupts import orderly

if TYPE_CHECKING:
    from ..llb.bridge import Bridge, FrontendCall
    from ..solver.gateway.bridge import Gateway
    from ..wire.pb import gateway_pb2

ROOT = Flag("root", "Folder of the build cache (default $BRICKYARD_ROOT, or ~/.local/share/brickyard)", metavar="dir")


def state_dir(parsed: Parsed, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder that holds cache, snapshots and images."""
    named = parsed.text("root") or environ.get("BRICKYARD_ROOT", "")
    if named:
        return Path(named).expanduser().absolute()
    data = environ.get("XDG_DATA_HOME", "")
    return (Path(data) if data else Path.home() / ".local" / "share") / "brickyard"


def _frontend_image(bridge: "Bridge", call: "FrontendCall") -> "gateway_pb2.Result":
    # Most builds name no frontend image.
    from ..solver.daemon.frontend_image import run

    return run(cast("Gateway", bridge), call)


@contextmanager
def open_solver(parsed: Parsed) -> Iterator[Solver]:
    """The solver for one command.

    Raises:
        ClientError: the state folder cannot be used.
    """
    from ..frontend.dockerfile.frontend import dockerfile_frontend
    from ..solver.embedded import EmbeddedSolver

    root = state_dir(parsed)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClientError(f"cannot use {root}: {error.strerror}", "name another folder with --root") from error
    with orderly():
        solver = EmbeddedSolver(root, frontends={"dockerfile.v0": dockerfile_frontend, "gateway.v0": _frontend_image})
        try:
            yield solver
        finally:
            solver.close()
