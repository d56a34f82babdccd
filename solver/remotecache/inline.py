"""Cache inside an image's config: keys for the layers that the image has anyway."""

import base64
import json
from collections.abc import Mapping, Sequence

from ...wire import errors
from ..base import Context, SolveError
from ..layers import Layer
from .config import CacheConfig, CacheLayer, CacheRecord
from .imported import Imported
from .registry import load as load_registry


def load(attrs: Mapping[str, str], context: Context) -> Imported:
    """The cache of an image in a registry."""
    return load_registry(attrs, context)


def store(config: CacheConfig, layers: Sequence[Layer], attrs: Mapping[str, str], context: Context) -> dict[str, str]:
    """An inline cache is written by the exporter of the image, and nowhere else."""
    raise SolveError("an inline cache goes with an image that is exported", code=errors.INVALID_ARGUMENT)


def config_field(config: CacheConfig, image: Sequence[str]) -> str:
    """What an image config holds of a cache, for the image's layers by diff id, the lowest first; "" for nothing."""
    places = {diff_id: number for number, diff_id in enumerate(image)}
    records = []
    for record in config.records:
        chains = []
        for chain in record.chains:
            numbers = [places.get(config.layers[number].diff_id, -1) for number in chain]
            if numbers and -1 not in numbers:
                chains.append(tuple(numbers))
        if chains:
            records.append(CacheRecord(record.digest, tuple(chains)))
    if not records:
        return ""
    # The image itself says what its layers are; only how they are stacked counts here.
    layers = tuple(CacheLayer(diff_id, number - 1) for number, diff_id in enumerate(image))
    value = CacheConfig(layers, tuple(records)).to_json()["records"]
    return base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()
