"""Where results go, one file each."""

from importlib import import_module
from typing import TYPE_CHECKING, cast

from ..base import SolveError

if TYPE_CHECKING:
    from ..base import Exporter

TABLE = {
    "image": "image",
    "oci": "oci",
    "docker": "docker",
    "local": "local",
    "tar": "tar",
}
"""The module of each type. A module is imported when the first export of its type comes."""


def find(type: str) -> "Exporter":
    """The exporter of a type such as `image`. Raises SolveError for an unknown one."""
    module = TABLE.get(type)
    if module is None:
        raise SolveError(f"unknown exporter {type!r}: known are {', '.join(TABLE)}")
    return cast("Exporter", import_module(f".{module}", __name__))
