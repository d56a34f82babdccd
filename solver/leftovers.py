"""What a process that was killed left in a state folder beside its stores, which look after themselves."""

from pathlib import Path

from .localsync.index import Indexes
from .ops import cache_mounts, private_files


def clean(root: Path) -> None:
    """Drop what is half made, and secrets; only while no other process uses the folder and no build runs."""
    private_files.wipe(root)
    cache_mounts.clean(root)
    Indexes(root).clean()
