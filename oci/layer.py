"""Layers: unpacked over a directory, packed from changes, compressed into blobs."""

from .blob import LayerBlob, LayerWriter, compress
from .compression import Compression, CompressionError, decompress
from .pack import Change, write_layer
from .unpack import LayerError, LayerStats, apply_layer, is_archive

__all__ = [
    "Change",
    "Compression",
    "CompressionError",
    "LayerBlob",
    "LayerError",
    "LayerStats",
    "LayerWriter",
    "apply_layer",
    "compress",
    "decompress",
    "is_archive",
    "write_layer",
]
