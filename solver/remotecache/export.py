"""What of a build goes into a cache: the results of its vertices, under every key that they are known by."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from ...wire import errors
from ..base import Context, SolveError
from ..exporters.blobs import layers_of
from ..exporters.options import LayerForm, boolean, layer_form
from ..layers import Layer
from ..scheduler.keys import IDENTITY, record_digest
from .config import CacheConfig, ConfigBuilder

MODES = ("min", "max")

Keyed = tuple[str, int]
"""A vertex's definition key, and how many outputs it has."""


def mode_of(attrs: Mapping[str, str]) -> str:
    """`min`, the layers of the result alone, or `max`, those of every vertex. Raises SolveError."""
    mode = attrs.get("mode") or "min"
    if mode not in MODES:
        raise SolveError(f"unknown cache mode {mode!r}: use min or max", code=errors.INVALID_ARGUMENT)
    return mode


def collect(
    vertices: Sequence[Keyed], heads: Iterable[str | None], mode: str, form: LayerForm, context: Context
) -> tuple[CacheConfig, list[Layer]]:
    """The config of a build's cache, and the layers that it names; `heads` are the snapshots of its results.

    Raises:
        SolveError: where a layer can't be written.
    """
    store = context.snapshots
    wanted = {name for head in heads for name in store.chain(head)} if mode == "min" else None
    records = context.cache.find([key for key, _ in vertices])
    keys_of = context.cache.keys_of([record.results for record in records.values()])
    builder = ConfigBuilder()
    known: dict[str, Layer] = {}
    # From the result down, so that one look gives the layers of all that is below.
    for key, outputs in reversed(vertices):
        context.check()
        record = records.get(key)
        if record is None or len(record.results) != outputs:
            continue
        snapshots = [name for name in record.results if name is not None and store.exists(name)]
        if len(snapshots) != outputs or (wanted is not None and not wanted.issuperset(snapshots)):
            continue
        identities = context.cache.get_values(IDENTITY, snapshots)
        for number, snapshot in enumerate(snapshots):
            digests = [record_digest(name, number, outputs) for name in keys_of[record.results]]
            identity = identities.get(snapshot)
            first = [identity.decode()] if identity is not None else []
            builder.add(list(dict.fromkeys([*first, *digests])), _chain(snapshot, known, form, context))
    return builder.build(), builder.layers


def _chain(snapshot: str, known: dict[str, Layer], form: LayerForm, context: Context) -> list[Layer]:
    names = context.snapshots.chain(snapshot)
    if any(name not in known for name in names):
        known.update(zip(names, layers_of(snapshot, form, context), strict=True))
    return [known[name] for name in names]


def export(
    kind: str,
    attrs: Mapping[str, str],
    collected: Callable[[str, LayerForm], tuple[CacheConfig, list[Layer]]],
    context: Context,
) -> dict[str, str]:
    """Write one cache; `collected` gives what a mode holds. Raises SolveError, unless `ignore-error` is set."""
    from . import find

    module = find(kind)
    try:
        config, layers = collected(mode_of(attrs), layer_form(attrs))
        if not layers:
            context.log(2, b"nothing to export: no vertex of the build has layers\n")
            return {}
        return module.store(config, layers, attrs, context)
    except (SolveError, OSError) as error:
        if not boolean("ignore-error", attrs.get("ignore-error", "false")):
            raise
        context.log(2, f"the cache was not exported: {error}\n".encode())
        return {}
