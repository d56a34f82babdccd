"""Attestations as in-toto statements: what the exporters put beside a result.

Source: BuildKit's exporter/attestation, and "Attestation storage" of its docs.
"""

import hashlib
import json
import os
import posixpath
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...oci.descriptor import encode_json
from ...oci.rootfs import Root, UnsafePath
from ...wire.fsutil import modes, tree
from ...wire.pb import gateway_pb2
from ...wire.pb.stat_pb2 import Stat
from ...wire.session import FileTree
from ..base import Attestation, Context, SolveError

LARGEST = 40 << 20
"""The most bytes of one attestation."""
TYPE = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/"

_CHUNK = 1 << 20
_INLINE_ONLY = "inline-only"
SBOM_CORE = "sbom-core"
"""The metadata that names the main SBOM among several."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a statement is about: a name, and digests by algorithm."""

    name: str
    digest: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with the path that its attestation has; `value` is the JSON object."""

    path: str
    predicate_type: str
    value: Mapping[str, Any]
    metadata: Mapping[str, bytes]

    def encode(self, indent: int | None = None) -> bytes:
        """The bytes that BuildKit writes."""
        return encode_json(self.value, indent)


def for_files(attestations: Sequence[Attestation]) -> list[Attestation]:
    """The attestations that are not meant for images only."""
    return [entry for entry in attestations if entry.metadata.get(_INLINE_ONLY) != b"true"]


def statements(
    attestations: Sequence[Attestation], subjects: Sequence[Subject], context: Context
) -> Iterator[Statement]:
    """The statements of a platform's attestations; `subjects` are what the result itself is.

    Bundles are taken apart. The main SBOM comes first.

    Raises:
        SolveError: where one is missing, too large or no JSON, and for a provenance that is not the solver's own.
    """
    found: list[tuple[bool, Statement]] = []
    for entry in attestations:
        made = _of_bundle(entry, context) if entry.kind == "bundle" else [_of_predicate(entry, subjects, context)]
        found += [(_is_core(statement), statement) for statement in made]
    yield from (statement for core, statement in found if core)
    yield from (statement for core, statement in found if not core)


def _is_core(statement: Statement) -> bool:
    core = statement.metadata.get(SBOM_CORE)
    return core is not None and posixpath.basename(statement.path).partition(".")[0].encode() == core


def _of_predicate(entry: Attestation, subjects: Sequence[Subject], context: Context) -> Statement:
    if not entry.path:
        raise SolveError("attestation does not have set path")
    if entry.content is not None:
        data = entry.content()
    elif entry.predicate_type.startswith(PROVENANCE):
        raise SolveError("frontend may not set provenance attestations")
    else:
        data = _read(entry, entry.path, context)
    value = {
        "_type": TYPE,
        "predicateType": entry.predicate_type,
        "subject": [{"name": s.name, "digest": dict(sorted(s.digest.items()))} for s in _subjects(entry, subjects)],
        "predicate": _json(data, entry.path) if data else None,
    }
    return Statement(entry.path, entry.predicate_type, value, entry.metadata)


def _subjects(entry: Attestation, own: Sequence[Subject]) -> Iterator[Subject]:
    given = entry.subjects or (gateway_pb2.InTotoSubject(kind=gateway_pb2.Self),)
    for subject in given:
        name = subject.name or "_"
        if subject.kind == gateway_pb2.Raw:
            yield Subject(name, dict(_split(digest) for digest in subject.digest))
            continue
        for one in own:
            yield one
            if name != "_":
                yield Subject(name, one.digest)


def _split(digest: str) -> tuple[str, str]:
    algorithm, _, encoded = digest.partition(":")
    return algorithm, encoded


def _of_bundle(entry: Attestation, context: Context) -> list[Statement]:
    if entry.content is not None or entry.result is None:
        raise SolveError("no ref provided for attestation bundle")
    out = []
    with context.snapshots.mounted(entry.result.snapshot) as folder, Root(folder) as root:
        try:
            names = sorted(os.listdir(root.resolve(entry.path)))
        except (OSError, UnsafePath) as error:
            raise SolveError(f"cannot read the attestation bundle {entry.path!r}: {error}") from None
    for name in names:
        path = posixpath.join(entry.path, name)
        value = _json(_read(entry, path, context), path)
        kind = value.get("predicateType") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(kind, str):
            raise SolveError(f"{path}: cannot decode in-toto statement")
        if entry.predicate_type and kind != entry.predicate_type:
            raise SolveError(f"bundle entry {kind} does not match required predicate type {entry.predicate_type}")
        if kind.startswith(PROVENANCE):
            raise SolveError("frontend may not bundle provenance attestations")
        whole = {"_type": TYPE, "predicateType": kind, "subject": value.get("subject") or []}
        whole["predicate"] = value.get("predicate")
        out.append(Statement(path, kind, whole, entry.metadata))
    return out


def _json(data: bytes, path: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise SolveError(f"{path}: cannot decode the attestation: it is no JSON") from None


def _read(entry: Attestation, path: str, context: Context) -> bytes:
    if entry.result is None:
        raise SolveError("attestation does not have available content")
    with context.snapshots.mounted(entry.result.snapshot) as folder, Root(folder) as root:
        try:
            file = root.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except (OSError, UnsafePath) as error:
            raise SolveError(f"cannot read in-toto attestation {path!r}: {error}") from None
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise SolveError(f"{path} is not a regular file")
            with open(file, "rb", closefd=False) as stream:
                data = stream.read(LARGEST + 1)
        finally:
            with suppress(OSError):
                os.close(file)
    if len(data) > LARGEST:
        raise SolveError(f"{path} exceeds {LARGEST} bytes")
    return data


def with_statements(
    files: FileTree,
    attestations: Sequence[Attestation],
    context: Context,
    *,
    prefix: str = "",
    platform: str = "",
    epoch: int | None = None,
) -> FileTree:
    """A tree with the attestations that are about its files beside them.

    Args:
        files: the tree.
        attestations: all; those for images only are left out.
        context: where they are read.
        prefix: put before each file's name.
        platform: named in each file's name, where several platforms share a folder.
        epoch: the files' time in seconds; None is now.

    Raises:
        SolveError: where one is broken, or two have one name.
    """
    found = for_files(attestations)
    if not found:
        return files
    when = int(time.time()) if epoch is None else epoch
    made: dict[str, bytes] = {}
    for statement in statements(found, _files_as_subjects(files, context), context):
        name = prefix + posixpath.basename(statement.path)
        if platform:
            stem, dot = posixpath.splitext(name)
            name = f"{stem}.{platform.replace('/', '_')}{dot}"
        if name in made:
            raise SolveError(f"duplicate attestation path name {name}")
        made[name] = statement.encode(2)
    entries = ((Stat(path=name, mode=0o600, modTime=when * 10**9), made[name]) for name in sorted(made))
    return tree.Merged(files, tree.Made(tuple(entries)))


def _files_as_subjects(files: FileTree, context: Context) -> list[Subject]:
    """Every regular file with its digest."""
    out = []
    for entry in files.entries():
        if entry.mode & modes.TYPE:
            continue
        context.check()
        total = hashlib.sha256()
        with files.open(entry.path) as file:
            while data := file.read(_CHUNK):
                total.update(data)
        out.append(Subject(entry.path, {"sha256": total.hexdigest()}))
    return out
