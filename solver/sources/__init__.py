"""Where file systems come from, one file each."""

from importlib import import_module
from typing import TYPE_CHECKING, cast

from ..base import SolveError

if TYPE_CHECKING:
    from ..base import Source

TABLE = {
    "local": "local",
    "docker-image": "image",
    "oci-layout": "oci_layout",
    "http": "http",
    "https": "http",
    "git": "git",
}
"""The module of each scheme. A module is imported when the first op of its scheme comes."""


def find(identifier: str) -> "Source":
    """The source that fetches an identifier such as `local://context`. Raises SolveError for an unknown scheme."""
    scheme, found, _ = identifier.partition("://")
    module = TABLE.get(scheme) if found else None
    if module is None:
        raise SolveError(f"unknown source {identifier!r}: known schemes are {', '.join(TABLE)}")
    return cast("Source", import_module(f".{module}", __name__))
