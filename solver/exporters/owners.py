"""Owners of the files of a result."""

import os

from ...wire.fsutil.walk import Change
from ...wire.pb.stat_pb2 import Stat


def owners() -> Change | None:
    """What makes every entry root's, where this process can't give files the owners that they have in the image."""
    return None if os.geteuid() == 0 else _to_root


def _to_root(stat: Stat) -> None:
    stat.uid = stat.gid = 0
