"""Lazy results: what a frontend holds of a graph that it asked to be solved."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

from ...wire.pb import gateway_pb2, ops_pb2
from ..base import Result, SolveError

if TYPE_CHECKING:
    from ..scheduler.job import Job, Node


class Ref:
    """A result of a definition, solved when it is asked for. `None` as the head is an empty file system."""

    def __init__(self, job: "Job", definition: ops_pb2.Definition, head: "tuple[Node, int] | None") -> None:
        self.id = secrets.token_hex(12)
        self.definition = definition
        self.request: tuple[str, Mapping[str, str]] | None = None
        """The frontend that made it, with its options."""
        self._job = job
        self._head = head

    @property
    def head(self) -> "tuple[Node, int] | None":
        """What it asks the job for."""
        return self._head

    def result(self, cancel: Event | None = None) -> Result:
        """The result, once it is there.

        Raises:
            SolveError: with the places in the user's files that the failed vertex comes from.
            Cancelled: where the build, or by `cancel` this call, was stopped.
        """
        return solve_all([self], cancel)[0]


def solve_all(refs: Sequence[Ref], cancel: Event | None = None) -> list[Result]:
    """The results of several refs of one build, solved at the same time. Raises as `Ref.result` does."""
    heads = [ref._head for ref in refs if ref._head is not None]
    try:
        found = iter(refs[0]._job.solve(heads, cancel) if heads else [])
    except SolveError as error:
        if error.vertex and not error.sources:
            from ..errdefs import definition_sources

            error.sources = next(
                (places for ref in refs if (places := definition_sources(ref.definition, error.vertex))), ()
            )
        raise
    return [next(found) if ref._head is not None else Result(None) for ref in refs]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a frontend gave: refs by platform id, or one under ""; None stands for an empty file system."""

    refs: Mapping[str, Ref | None] = field(default_factory=dict)
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    attestations: Mapping[str, Sequence[tuple[gateway_pb2.Attestation, Ref | None]]] = field(default_factory=dict)

    def every_ref(self) -> list[Ref]:
        """All refs, those of attestations too."""
        found = [ref for ref in self.refs.values() if ref is not None]
        found += [ref for entries in self.attestations.values() for _, ref in entries if ref is not None]
        return list(dict.fromkeys(found))
