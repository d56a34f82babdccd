"""The builds that ran, kept over restarts: records in SQLite, logs and other blobs in files named by their digest."""

import base64
import json
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from google.protobuf.message import DecodeError

from ...wire.pb import control_pb2, rpc_status_pb2
from . import status as status_log
from .history_filter import select
from .log import log
from .status import StatusLog

STATUS_TYPE = "application/vnd.googeapis.google.rpc.status+proto"
"""The media type of a build's error, spelled as BuildKit spells it."""

MAX_AGE = 48 * 3600.0
MAX_ENTRIES = 50

INTERNAL_SECONDS = 20.0
"""How long the events of an internal build can still be asked for."""

_STARTED = control_pb2.STARTED
_COMPLETE = control_pb2.COMPLETE
_DELETED = control_pb2.DELETED

_TABLES = """
CREATE TABLE IF NOT EXISTS builds (
    ref TEXT PRIMARY KEY,
    record BLOB NOT NULL,
    completed REAL NOT NULL,
    pinned INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""


class NoSuchBuild(Exception):
    """The history has no build of that ref."""


class History:
    """The history under a folder; a build that is past both limits is forgotten unless it is pinned."""

    def __init__(self, folder: Path, *, max_age: float = MAX_AGE, max_entries: int = MAX_ENTRIES) -> None:
        self._folder = folder
        self._blobs = folder / "blobs"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._max_age = max_age
        self._max_entries = max_entries
        self._lock = threading.RLock()
        self._active: dict[str, tuple[control_pb2.BuildHistoryRecord, StatusLog]] = {}
        self._unnamed: set[str] = set()
        """Blobs of builds that run, whose records don't name them yet."""
        self._internal: dict[str, tuple[float, StatusLog]] = {}
        self._listeners: set[queue.SimpleQueue[control_pb2.BuildHistoryEvent | None]] = set()
        self._stopping = False
        self._db = sqlite3.connect(folder / "history.db", check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_TABLES)
        for left in folder.glob("*.part"):
            left.unlink()
        self.collect()

    def start(self, record: control_pb2.BuildHistoryRecord, *, internal: bool = False) -> StatusLog:
        """A build begins; its events go to the log that is returned.

        Raises:
            ValueError: where a build of this ref runs already.
        """
        with self._lock:
            if record.Ref in self._active:
                raise ValueError(f"a build with the ref {record.Ref} runs already")
            record.CreatedAt.GetCurrentTime()
            events = StatusLog(self._part(record.Ref))
            self._forget_internal()
            kept = control_pb2.BuildHistoryRecord()
            kept.CopyFrom(record)
            self._active[record.Ref] = (kept, events)
            if not internal:
                self._tell(_STARTED, kept)
        return events

    def finish(
        self, record: control_pb2.BuildHistoryRecord, error: rpc_status_pb2.Status | None, *, internal: bool = False
    ) -> None:
        """A build ended: its record is completed and kept. An internal build leaves no record, but for a moment its
        events: whoever wants them may still be on the way."""
        with self._lock:
            _, events = self._active[record.Ref]
            events.close()
            part = self._part(record.Ref)
            try:
                if internal:
                    self._internal[record.Ref] = time.monotonic() + INTERNAL_SECONDS, events
                    return
                self._complete(record, part, error)
                data = record.SerializeToString()
                self._db.execute(
                    "INSERT OR REPLACE INTO builds (ref, record, completed, pinned) VALUES (?, ?, ?, 0)",
                    (record.Ref, data, _seconds(record.CompletedAt)),
                )
                self._tell(_COMPLETE, record)
            finally:
                self._unnamed.difference_update(_digests(record))
                del self._active[record.Ref]

    def _forget_internal(self) -> None:
        now = time.monotonic()
        for ref in [ref for ref, (until, _) in self._internal.items() if until < now]:
            del self._internal[ref]
            self._part(ref).unlink(missing_ok=True)

    def _complete(
        self, record: control_pb2.BuildHistoryRecord, part: Path, error: rpc_status_pb2.Status | None
    ) -> None:
        summary = status_log.summarize(part)
        os.replace(part, self._blob(summary.digest))
        record.logs.media_type = status_log.MEDIA_TYPE
        record.logs.digest, record.logs.size = summary.digest, summary.size
        record.numTotalSteps, record.numCompletedSteps = summary.steps, summary.completed
        record.numCachedSteps, record.numWarnings = summary.cached, summary.warnings
        record.CompletedAt.GetCurrentTime()
        _add_result(record)
        if error is not None:
            record.error.code, record.error.message = error.code, error.message
            record.externalError.CopyFrom(self.add_blob(error.SerializeToString(), STATUS_TYPE))

    def add_blob(self, data: bytes, media_type: str) -> control_pb2.Descriptor:
        """Keep a blob that a record will name."""
        digest = f"sha256:{sha256(data).hexdigest()}"
        path = self._blob(digest)
        with self._lock:
            self._unnamed.add(digest)
            if not path.exists():
                part = self._folder / f"{digest[7:]}.blob.part"
                part.write_bytes(data)
                os.replace(part, path)
        return control_pb2.Descriptor(media_type=media_type, digest=digest, size=len(data))

    def blob(self, digest: str) -> Path | None:
        """The file of a blob, None where there is none."""
        try:
            path = self._blob(digest)
        except ValueError:
            return None
        return path if path.is_file() else None

    def status(self, ref: str, stop: Callable[[], bool]) -> Iterator[bytes]:
        """The events of a build that runs or ran, from the start on.

        Raises:
            NoSuchBuild: where there is none.
        """
        with self._lock:
            # Under the lock, since the end of the build moves the file.
            running = self._active.get(ref) or self._internal.get(ref)
            if running:
                return running[1].follow(stop)
            path = self.blob(self.record(ref).logs.digest)
            return status_log.replay(path) if path is not None else iter(())

    def active(self, ref: str) -> bool:
        """Whether a build of this ref runs."""
        return ref in self._active

    def record(self, ref: str) -> control_pb2.BuildHistoryRecord:
        """The record of a build that ended. Raises NoSuchBuild."""
        row = self._row(ref)
        if row is None:
            raise NoSuchBuild(f"no such job {ref}")
        return control_pb2.BuildHistoryRecord.FromString(row)

    def listen(
        self, request: control_pb2.BuildHistoryRequest, stop: Callable[[], bool]
    ) -> Iterator[control_pb2.BuildHistoryEvent]:
        """Events as `ListenBuildHistory` sends them: builds that run, builds that ended, and what comes later.

        Raises:
            ValueError: for a filter or limit that is not understood.
        """
        box: queue.SimpleQueue[control_pb2.BuildHistoryEvent | None] = queue.SimpleQueue()
        with self._lock:
            self._listeners.add(box)
            running = [record for record, _ in self._active.values() if request.Ref in ("", record.Ref)]
            ended = [] if request.ActiveOnly else self._records(request.Ref)
        try:
            for record in running:
                yield control_pb2.BuildHistoryEvent(type=_STARTED, record=record)
            for record in select(ended, list(request.Filter), request.Limit):
                yield control_pb2.BuildHistoryEvent(type=_COMPLETE, record=record)
            while not request.EarlyExit and not stop() and not self._stopping:
                try:
                    event = box.get(timeout=1.0)
                except queue.Empty:
                    continue
                if event is None:
                    return
                if request.Ref in ("", event.record.Ref):
                    yield event
        finally:
            with self._lock:
                self._listeners.discard(box)

    def update(self, request: control_pb2.UpdateBuildHistoryRequest) -> None:
        """Pin, unpin or delete a build that ended. Raises NoSuchBuild."""
        with self._lock:
            if request.Finalize:
                # A record is complete as soon as the build ends: it keeps no trace that could still grow.
                return
            if request.Delete:
                self._delete(request.Ref)
                self._drop_unused()
                return
            record = self.record(request.Ref)
            if record.pinned != request.Pinned:
                record.pinned = request.Pinned
            record.Generation += 1
            self._db.execute(
                "UPDATE builds SET record = ?, pinned = ? WHERE ref = ?",
                (record.SerializeToString(), int(record.pinned), record.Ref),
            )
            self._tell(_COMPLETE, record)

    def collect(self) -> None:
        """Forget builds past both limits, and blobs that no record names."""
        with self._lock:
            oldest = time.time() - self._max_age
            rows = self._db.execute(
                "SELECT ref, completed FROM builds WHERE NOT pinned ORDER BY completed DESC LIMIT -1 OFFSET ?",
                (max(self._max_entries, 0),),
            ).fetchall()
            for ref, completed in rows:
                if completed < oldest:
                    self._delete(ref)
            self._drop_unused()

    def stop(self) -> None:
        """End all listeners."""
        with self._lock:
            self._stopping = True
            for box in self._listeners:
                box.put(None)

    def close(self) -> None:
        """End all listeners and close the store."""
        self.stop()
        with self._lock:
            self._db.close()

    def _tell(self, kind: "control_pb2.BuildHistoryEventType", record: control_pb2.BuildHistoryRecord) -> None:
        event = control_pb2.BuildHistoryEvent(type=kind, record=record)
        for box in self._listeners:
            box.put(event)

    def _row(self, ref: str) -> bytes | None:
        with self._lock:
            row = self._db.execute("SELECT record FROM builds WHERE ref = ?", (ref,)).fetchone()
        return None if row is None else row[0]

    def _records(self, ref: str) -> list[control_pb2.BuildHistoryRecord]:
        query, values = "SELECT record FROM builds", ()
        if ref:
            query, values = f"{query} WHERE ref = ?", (ref,)  # type: ignore[assignment]
        found = []
        for (data,) in self._db.execute(f"{query} ORDER BY ref", values):
            try:
                found.append(control_pb2.BuildHistoryRecord.FromString(data))
            except DecodeError:
                log.warning("a build record is broken and is left out")
        return found

    def _delete(self, ref: str) -> None:
        if self._db.execute("DELETE FROM builds WHERE ref = ?", (ref,)).rowcount == 0:
            raise NoSuchBuild(f"failed to retrieve ref {ref}: no such build")
        self._tell(_DELETED, control_pb2.BuildHistoryRecord(Ref=ref))

    def _drop_unused(self) -> None:
        used = {digest for record in self._records("") for digest in _digests(record)} | self._unnamed
        for path in self._blobs.iterdir():
            if f"sha256:{path.name}" not in used:
                path.unlink(missing_ok=True)

    def _part(self, ref: str) -> Path:
        # A ref is the client's word and no file name.
        return self._folder / f"{sha256(ref.encode()).hexdigest()}.part"

    def _blob(self, digest: str) -> Path:
        algorithm, _, name = digest.partition(":")
        if algorithm != "sha256" or len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            raise ValueError(f"not a digest of the history: {digest!r}")
        return self._blobs / name


def _digests(record: control_pb2.BuildHistoryRecord) -> Iterator[str]:
    yield record.logs.digest
    yield record.trace.digest
    yield record.externalError.digest
    for result in (record.Result, *record.Results.values()):
        for attestation in result.Attestations:
            yield attestation.digest


def _add_result(record: control_pb2.BuildHistoryRecord) -> None:
    """The descriptor of what an exporter wrote, where its response has one."""
    text = record.ExporterResponse.get("containerimage.descriptor", "")
    try:
        found = json.loads(base64.b64decode(text)) if text else {}
    except ValueError:
        found = {}
    if not isinstance(found, dict) or not found.get("digest"):
        return
    descriptor = control_pb2.Descriptor(
        media_type=str(found.get("mediaType", "")),
        digest=str(found["digest"]),
        size=int(found.get("size", 0)),
        annotations={str(key): str(value) for key, value in (found.get("annotations") or {}).items()},
    )
    record.Result.ResultDeprecated.CopyFrom(descriptor)
    record.Result.Results[0].CopyFrom(descriptor)


def _seconds(stamp: object) -> float:
    return float(getattr(stamp, "seconds", 0)) + float(getattr(stamp, "nanos", 0)) / 1e9
