"""The provenance of every build, kept with its record whether or not the image has one.

Source: BuildKit's solver/llbsolver/history.go.
"""

from typing import TYPE_CHECKING

from ...wire.pb import control_pb2
from ..base import SolveError
from .history import History
from .log import log

if TYPE_CHECKING:
    from ..build import Build
    from ..gateway.refs import Outcome

IN_TOTO = "application/vnd.in-toto+json"
PREDICATE_KEY = "in-toto.io/predicate-type"


def add_provenance(
    record: control_pb2.BuildHistoryRecord, build: "Build", outcome: "Outcome", history: History
) -> None:
    """Keep the provenance of each result, and name it in the record. What fails is logged: the build itself is fine."""
    from ..provenance import Options, attest, requested

    try:
        asked = requested(record.FrontendAttrs).get("provenance", {})
        options = Options(builder_id=asked.get("builder-id", ""))
        for key, ref in outcome.refs.items():
            made = attest(build, ref, options)
            if made is None or made.content is None:
                continue
            descriptor = history.add_blob(made.content(), IN_TOTO)
            descriptor.annotations[PREDICATE_KEY] = made.predicate_type
            result = record.Results[key] if key else record.Result
            result.Attestations.append(descriptor)
    except (SolveError, OSError, ValueError) as error:
        log.warning("no provenance for the record of build %s: %s", record.Ref, error)
