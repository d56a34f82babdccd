"""Cache that other machines keep: BuildKit's cache config and its layers, one file for each place that holds them."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from ...wire import errors
from ..base import Context, SolveError

if TYPE_CHECKING:
    from ..layers import Layer
    from .config import CacheConfig
    from .imported import Imported

_TYPES = ("inline", "local", "registry")
_ABSENT = ("azblob", "gha", "s3")


class CacheType(Protocol):
    """A type of cache: a module of `remotecache/`."""

    def load(self, attrs: Mapping[str, str], context: Context) -> "Imported":
        """What the place holds. Raises SolveError where it holds no cache, or can't be reached."""

    def store(
        self, config: "CacheConfig", layers: Sequence["Layer"], attrs: Mapping[str, str], context: Context
    ) -> dict[str, str]:
        """Put a config and its layers there; returns what the client is told."""


def find(kind: str) -> CacheType:
    """The module of a type. Raises SolveError for one that is not supported."""
    if kind not in _TYPES:
        known = ", ".join(_TYPES)
        what = "is not supported by this solver" if kind in _ABSENT else "is not known"
        raise SolveError(f"cache of type {kind!r} {what}; there are: {known}", code=errors.UNIMPLEMENTED)
    return cast(CacheType, import_module(f".{kind}", __name__))
