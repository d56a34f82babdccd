"""Layers: unpacked over a directory, packed from changes, compressed into blobs."""

from .blob import LayerBlob, LayerWriter, compress
from .compression import Compression, CompressionError, decompress
from .diff import Below, Change, Difference, Folder, Listings, Stack, of_trees, of_upper, pack
from .pack import LayerPacker
from .unpack import LayerError, LayerStats, apply_layer, free_space, is_archive

__all__ = [
    "Below",
    "Change",
    "Compression",
    "CompressionError",
    "Difference",
    "Folder",
    "LayerBlob",
    "LayerError",
    "LayerPacker",
    "LayerStats",
    "LayerWriter",
    "Listings",
    "Stack",
    "apply_layer",
    "compress",
    "decompress",
    "free_space",
    "is_archive",
    "of_trees",
    "of_upper",
    "pack",
]
