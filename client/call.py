"""Questions about a Dockerfile that are answered by its frontend: BuildKit's subrequests."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import inputs, request
from .errors import ClientError
from .options import BuildOptions
from .outputs import Outputs
from .secrets import Secrets
from .session import LocalSession
from .solver import OnStatus, Solver

if TYPE_CHECKING:
    from ..llb.bridge import Bridge, FrontendCall
    from ..wire.pb import gateway_pb2

REQUESTS = {
    "check": "frontend.lint",
    "lint": "frontend.lint",
    "outline": "frontend.outline",
    "targets": "frontend.targets",
    "subrequests.describe": "frontend.subrequests.describe",
}
"""The names that buildx's `--call` has for subrequests."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a frontend answered: a text for people and a JSON document."""

    metadata: Mapping[str, bytes]

    @property
    def text(self) -> str:
        """For people; empty where the frontend gave none."""
        return self.metadata.get("result.txt", b"").decode(errors="replace")

    @property
    def document(self) -> Any:
        """The parsed JSON; None where the frontend gave none."""
        data = self.metadata.get("result.json")
        return None if data is None else json.loads(data)

    @property
    def status(self) -> int:
        """The exit code that the frontend asks for."""
        text = self.metadata.get("result.statuscode", b"0")
        return int(text) if text.isdigit() else 1


def ask(solver: Solver, options: BuildOptions, name: str, on_status: OnStatus) -> Answer:
    """Ask a question of `REQUESTS` about the build that the options describe; nothing is built.

    Raises:
        ClientError: the options ask for something that is not there.
    """
    with ExitStack() as cleanup:
        found = inputs.prepare(options, cleanup)
        session = LocalSession(found, Outputs((), options.stdout), Secrets(options.secrets), options.ssh)
        asked = request.solve_request(options, found, [], session.id)
        given: dict[str, bytes] = {}

        def frontend(bridge: "Bridge", call: "FrontendCall") -> "gateway_pb2.Result":
            from ..wire.pb import gateway_pb2

            wanted = gateway_pb2.SolveRequest(
                Frontend=asked.Frontend,
                FrontendOpt={**asked.FrontendAttrs, "requestid": REQUESTS[name]},
                allowResultReturn=True,
            )
            for key, definition in asked.FrontendInputs.items():
                wanted.FrontendInputs[key].CopyFrom(definition)
            answer = bridge.solve(wanted)
            given.update(answer.result.metadata)
            return answer.result

        direct = type(asked)()
        direct.CopyFrom(asked)
        direct.Frontend = ""
        direct.FrontendAttrs.clear()
        solver.solve(direct, session, on_status, client_frontend=frontend)
    if not given:
        raise ClientError(f"the frontend does not answer --call {name}")
    return Answer(given)
