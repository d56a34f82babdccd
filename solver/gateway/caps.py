"""What the gateway can do (BuildKit's frontend/gateway/pb/caps.go), and the worker that it speaks for."""

import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...oci.platform import Platform, host
from ...wire.pb import caps_pb2, ops_pb2, worker_pb2
from ..capabilities import SUPPORTED

GATEWAY = (
    "solve.base",
    "solve.inlinereturn",
    "resolveimage",
    "resolveimage.resolvemode",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "gateway.exec",
    "gateway.exec.extrahosts",
    "gateway.exec.secretenv",
    "gateway.exec.signals",
    "gateway.exec.filesystem",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "reference.attestations",
    "source.metaresolver",
)
"""The gateway's capabilities that are supported."""


def messages(ids: Iterable[str]) -> list[caps_pb2.APICap]:
    """Capabilities as a handshake sends them."""
    return [caps_pb2.APICap(ID=id, Enabled=True) for id in ids]


def gateway_caps() -> list[caps_pb2.APICap]:
    """What `Ping` says of the gateway."""
    return messages(GATEWAY)


def llb_caps() -> list[caps_pb2.APICap]:
    """What `Ping` says of ops."""
    return messages(sorted(SUPPORTED))


def platform_message(platform: Platform) -> ops_pb2.Platform:
    """A platform in the protocol's form."""
    return ops_pb2.Platform(
        OS=platform.os,
        Architecture=platform.architecture,
        Variant=platform.variant,
        OSVersion=platform.os_version,
        OSFeatures=platform.os_features,
    )


def platforms() -> list[Platform]:
    """What this machine runs: its own platform, and those that the kernel hands to an emulator."""
    from .binfmt import emulated

    own = host()
    return [own, *(platform for platform in emulated() if platform != own)]


def worker_record(root: Path, snapshotter: str, executor: str = "oci") -> worker_pb2.WorkerRecord:
    """The one worker that a state folder is, with an id that stays."""
    return worker_pb2.WorkerRecord(
        ID=_worker_id(root),
        Labels={
            "org.mobyproject.buildkit.worker.executor": executor,
            "org.mobyproject.buildkit.worker.hostname": socket.gethostname(),
            "org.mobyproject.buildkit.worker.network": "host",
            "org.mobyproject.buildkit.worker.snapshotter": snapshotter,
        },
        platforms=_platform_messages(platforms()),
    )


def _platform_messages(found: Sequence[Platform]) -> list[ops_pb2.Platform]:
    return [platform_message(platform) for platform in found]


def _worker_id(root: Path) -> str:
    import os
    import secrets

    note = root / "workerid"
    try:
        return note.read_text().strip() or _new_id(note)
    except FileNotFoundError:
        id = secrets.token_hex(12)
        new = note.with_name(f"workerid.{id}")
        new.write_text(id)
        try:
            os.link(new, note)
        except OSError:
            return note.read_text().strip() or id
        finally:
            new.unlink(missing_ok=True)
        return id


def _new_id(note: Path) -> str:
    import secrets

    id = secrets.token_hex(12)
    note.write_text(id)
    return id
