"""A layer with other times: what `rewrite-timestamp` does to layers that were not made here."""

from .compression import decompress
from .tar import Readable, TarReader, TarWriter, Writable


def bound_times(layer: Readable, out: Writable, timestamp: int) -> None:
    """Copy a layer, compressed or not, as a tar in which no file is younger than `timestamp`, in seconds.

    Raises:
        TarError, CompressionError: where the layer is damaged.
    """
    latest = timestamp * 10**9
    reader, writer = TarReader(decompress(layer)), TarWriter(out)
    for entry in reader:
        sparse, entry.pieces = entry.pieces, None
        entry.mtime_ns = min(entry.mtime_ns, latest)
        writer.add(entry)
        at = 0
        for offset, data in reader.data():
            _zeros(writer, offset - at)
            writer.write(bytes(data))
            at = offset + len(data)
        if sparse is not None:
            _zeros(writer, entry.size - at)
    writer.close()


def _zeros(writer: TarWriter, count: int) -> None:
    while count:
        step = min(count, 1 << 20)
        writer.write(bytes(step))
        count -= step
