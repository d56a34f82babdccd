"""The bundled solver, opened on the state folder that the user named."""

import math
import os
import sys
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
    if data:
        return Path(data) / "brickyard"
    try:
        return Path.home() / ".local" / "share" / "brickyard"
    except RuntimeError:
        raise ClientError("this user has no home folder", "set HOME, or name a folder with --root") from None


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
    except FileExistsError:
        raise ClientError(f"cannot use {root}: it is a file", "name a folder with --root") from None
    except OSError as error:
        raise ClientError(f"cannot use {root}: {error.strerror}", "name another folder with --root") from error

    def on_wait(holder: int) -> None:
        who = f"process {holder}, which is using" if holder else "the process that is using"
        print(f"waiting for {who} {root}", file=sys.stderr, flush=True)

    with orderly():
        solver = EmbeddedSolver(
            root,
            frontends={"dockerfile.v0": dockerfile_frontend, "gateway.v0": _frontend_image},
            lock_seconds=math.inf,
            on_wait=on_wait,
        )
        try:
            yield solver
        finally:
            solver.close()
