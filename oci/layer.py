"""Layers: unpacked over a directory, packed from changes, compressed into blobs."""

from .blob import LayerBlob, LayerWriter, compress
from .compression import Compression, CompressionError, decompress
from .diff import Change, Difference, of_trees, of_upper, pack
from .pack import LayerPacker
from .unpack import LayerError, LayerStats, apply_layer, is_archive

__all__ = [
    "Change",
    "Compression",
    "CompressionError",
    "Difference",
    "LayerBlob",
    "LayerError",
    "LayerPacker",
    "LayerStats",
    "LayerWriter",
    "apply_layer",
    "compress",
    "decompress",
    "is_archive",
    "of_trees",
    "of_upper",
    "pack",
]
