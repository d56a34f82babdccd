"""One build from a user's options to its result, over any solver."""

import base64
import json
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import caches, inputs, request
from .options import BuildOptions
from .outputs import Outputs, check
from .secrets import Secrets
from .session import LocalSession
from .solver import Explanation, OnStatus, Solver

if TYPE_CHECKING:
    from ..wire.pb import ops_pb2


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What the exporters said (BuildKit's `ExporterResponse`), what `docker load` did where it ran, and, where that
    was asked for, what was found in the cache."""

    response: dict[str, str]
    loaded: tuple[str, ...] = ()
    explained: tuple[Explanation, ...] = ()

    @property
    def digest(self) -> str:
        """The digest of the image's manifest or index; empty where no image was made."""
        return self.response.get("containerimage.digest", "")

    @property
    def image_id(self) -> str:
        """The digest that docker calls the image's ID: its config's, where one is known."""
        return self.response.get("containerimage.config.digest", self.digest)

    @property
    def names(self) -> list[str]:
        """The names the image has."""
        return [name for name in self.response.get("image.name", "").split(",") if name]

    def metadata(self) -> dict[str, Any]:
        """The response as `--metadata-file` shows it: values that are JSON objects in base64 are shown as objects."""
        return {key: _decoded(key, value) for key, value in sorted(self.response.items())}


def _decoded(key: str, value: str) -> Any:
    try:
        found = json.loads(value if key == "result.json" else base64.b64decode(value, validate=True))
    except ValueError:
        return value
    return found if isinstance(found, dict) and found else value


def build(solver: Solver, options: BuildOptions, on_status: OnStatus) -> BuildResult:
    """Build, and put the outputs in their places.

    Raises:
        ClientError: the options ask for something that is not there or not supported.
    """
    exporters = request.outputs_of(options)
    check(exporters, options.stdout, options.allow)
    with ExitStack() as cleanup:
        found = inputs.prepare(options, cleanup)
        outputs = Outputs(exporters, options.stdout)
        cleanup.callback(outputs.discard)
        session = LocalSession(found, outputs, Secrets(options.secrets), options.ssh)
        cached = caches.prepare(options.cache_from, options.cache_to)
        found.layouts |= cached.stores
        asked = request.solve_request(options, found, exporters, session.id, cached)
        try:
            answer = solver.solve(asked, session, on_status)
        except Exception as error:
            from .hints import add_hint

            add_hint(error, found)
            raise
        cached.commit(answer.ExporterResponse)
        explained = tuple(solver.explain(asked.Ref)) if options.explain else ()
        return BuildResult(dict(answer.ExporterResponse), tuple(outputs.commit()), explained)


def definition(solver: Solver, options: BuildOptions) -> "ops_pb2.Definition":
    """The build graph of a Dockerfile, without building it.

    Raises:
        ClientError: the options ask for something that is not there or not supported.
    """
    with ExitStack() as cleanup:
        found = inputs.prepare(options, cleanup)
        session = LocalSession(found, Outputs((), options.stdout), Secrets(()), {})
        return solver.definition(request.solve_request(options, found, [], session.id), session)
