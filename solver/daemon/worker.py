"""The one worker that this daemon is, as `ListWorkers` and `Info` show it."""

import re
from collections.abc import Sequence
from pathlib import Path

from ... import __version__
from ...oci.platform import Platform
from ...wire.pb import worker_pb2
from ..base import SolveError
from ..gateway.caps import platform_message, worker_record

_FILTER = re.compile(r'(id|platform|labels\.(?:"[^"]+"|[^=!~]+))(?:(==|!=|~=)(.*))?\Z')


class WorkerInfo:
    """The worker's record: what the store and this machine give, and what the configuration says of it."""

    def __init__(
        self,
        root: Path,
        snapshotter: str,
        *,
        labels: dict[str, str],
        platforms: Sequence[Platform],
        policies: Sequence[worker_pb2.GCPolicy],
    ) -> None:
        self._root = root
        self._snapshotter = snapshotter
        self._labels = labels
        self._platforms = platforms
        self._policies = policies

    def version(self) -> worker_pb2.BuildkitVersion:
        """Our name and version, where a BuildKit has its own."""
        return worker_pb2.BuildkitVersion(package="brickyard", version=f"v{__version__}")

    def record(self) -> worker_pb2.WorkerRecord:
        """The record."""
        record = worker_record(self._root, self._snapshotter)
        record.Labels.update(self._labels)
        if self._platforms:
            del record.platforms[:]
            record.platforms.extend(platform_message(platform) for platform in self._platforms)
        record.GCPolicy.extend(self._policies)
        record.BuildkitVersion.CopyFrom(self.version())
        return record

    def matches(self, filters: Sequence[str]) -> bool:
        """Whether all parts of any filter match (`id==…`, `labels.NAME==…`). Raises SolveError for others."""
        record = self.record()
        return not filters or any(all(_matches(record, part) for part in text.split(",")) for text in filters)


def _matches(record: worker_pb2.WorkerRecord, text: str) -> bool:
    match = _FILTER.match(text.strip())
    if match is None:
        raise SolveError(f"unknown worker filter {text!r}: known are id and labels.NAME with ==, != or ~=", code=3)
    name, compare, value = match[1], match[2], (match[3] or "").strip('"')
    if name == "id":
        found = [record.ID]
    elif name == "platform":
        found = [f"{one.OS}/{one.Architecture}" for one in record.platforms]
    else:
        label = name.removeprefix("labels.").strip('"')
        found = [record.Labels[label]] if label in record.Labels else []
    if compare is None:
        return bool(found)
    if compare == "~=":
        try:
            return any(re.search(value, one) for one in found)
        except re.error as error:
            raise SolveError(f"broken expression in the worker filter {text!r}: {error}", code=3) from None
    return (value in found) == (compare == "==")
