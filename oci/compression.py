"""The compressions of layers, as streams. Each library is imported where its format turns up."""

import io
import os
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, cast

from .tar import Readable

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

Compression = Literal["uncompressed", "gzip", "zstd"]

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\0"
# A header without name and time: equal content gives equal bytes.
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_LIBRARY_LEVELS = range(1, 4)
_FAST = 2
# An empty block that ends a stream (RFC 1951, 3.2.6).
_LAST_BLOCK = b"\x03\x00"
_PENDING = 8
BLOCK = 1 << 20
"""How much content gzip compresses at a time."""


class CompressionError(ValueError):
    """A compressed stream that is damaged."""


class Compressor(Protocol):
    """Turns pieces of content into pieces of a compressed stream."""

    def compress(self, data: bytes, /) -> bytes:
        """Take content, give what is ready."""
        ...

    def flush(self) -> bytes:
        """End the stream."""
        ...


class _Joined(io.RawIOBase):
    """A stream with the bytes put back that were read from it to look at."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._head:
            size = len(self._head) if size < 0 else size
            out, self._head = self._head[:size], self._head[size:]
            return out
        return self._rest.read(size)

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


class _Checked:
    """A decompressing stream whose errors are all `CompressionError`."""

    def __init__(
        self, inner: Readable, errors: tuple[type[Exception], ...], complete: Callable[[], bool] = lambda: True
    ) -> None:
        self._inner = inner
        self._errors = errors
        self._complete = complete

    def read(self, size: int, /) -> bytes:
        try:
            data = self._inner.read(size)
        except self._errors as error:
            raise CompressionError(f"damaged compressed stream: {error}") from None
        if size and not data and not self._complete():
            raise CompressionError("the compressed stream is cut short")
        return data


class _ZstdFrames:
    """Passes a zstd stream on and follows its frames (RFC 8878, 3.1).

    The library takes the end of its input for the end of the content, also in the middle of a frame.
    """

    def __init__(self, inner: Readable) -> None:
        self._inner = inner
        self._skip = 0
        self._part = b""
        self._begin()

    def complete(self) -> bool:
        """Whether the input so far ends where a frame does."""
        return not self._skip and not self._part and self._next == self._magic

    def read(self, size: int, /) -> bytes:
        data = self._inner.read(size)
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
            else:
                part = data[at : at + self._need - len(self._part)]
                step = len(part)
                self._part += part
                if len(self._part) == self._need:
                    whole, self._part = self._part, b""
                    self._next(whole)
            at += step
        return data

    def _expect(self, size: int, then: Callable[[bytes], None]) -> None:
        self._need, self._next = size, then

    def _begin(self) -> None:
        self._expect(4, self._magic)

    def _magic(self, raw: bytes) -> None:
        if raw == _ZSTD:
            self._expect(1, self._header)
        else:
            self._expect(4, self._skippable)

    def _skippable(self, raw: bytes) -> None:
        self._skip = int.from_bytes(raw, "little")
        self._begin()

    def _header(self, raw: bytes) -> None:
        flags = raw[0]
        single = flags >> 5 & 1
        self._trailer = 4 if flags & 4 else 0
        self._skip = (0 if single else 1) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
        self._expect(3, self._block)

    def _block(self, raw: bytes) -> None:
        header = int.from_bytes(raw, "little")
        repeated = header >> 1 & 3 == 1
        self._skip = 1 if repeated else header >> 3
        if header & 1:
            self._skip += self._trailer
            self._begin()


def detect(head: bytes) -> str:
    """The compression that a stream beginning with `head` (6 bytes or more) has: also bzip2 and xz."""
    if head.startswith(_GZIP):
        return "gzip"
    # A skippable frame may come first (RFC 8878, 3.1.2).
    if head.startswith(_ZSTD) or (len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return "zstd"
    if head.startswith(_BZIP2):
        return "bzip2"
    return "xz" if head.startswith(_XZ) else "uncompressed"


def decompress(stream: Readable) -> Readable:
    """The content of a stream, whatever its compression: gzip, zstd, bzip2, xz or none.

    Reading the result raises `CompressionError` where the stream is damaged.
    """
    head = b""
    while len(head) < 6 and (more := stream.read(6 - len(head))):
        head += more
    joined = _Joined(head, stream)
    match detect(head):
        case "gzip":
            import zlib

            from isal import igzip, isal_zlib

            reader = cast(Callable[..., Readable], igzip.IGzipFile)(fileobj=joined, mode="rb")
            damaged = cast(type[Exception], isal_zlib.error)
            return _Checked(reader, (damaged, zlib.error, EOFError, igzip.BadGzipFile))
        case "zstd":
            import zstandard

            frames = _ZstdFrames(joined)
            content = zstandard.ZstdDecompressor().stream_reader(cast(BinaryIO, frames), read_across_frames=True)
            return _Checked(content, (zstandard.ZstdError,), frames.complete)
        case "bzip2":
            import bz2

            return _Checked(bz2.BZ2File(cast(BinaryIO, joined)), (OSError, EOFError, ValueError))
        case "xz":
            import lzma

            return _Checked(lzma.LZMAFile(cast(BinaryIO, joined)), (lzma.LZMAError, EOFError))
    return joined


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class _Gzip:
    """Raw deflate between a header and a trailer of ours, in one thread: what zlib's higher levels need."""

    def __init__(self, level: int) -> None:
        import zlib

        self._crc: Callable[[bytes, int], int] = zlib.crc32
        self._deflate: Compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
        self._sum = 0
        self._size = 0
        self._begun = False

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return _GZIP_HEADER

    def compress(self, data: bytes, /) -> bytes:
        self._sum = self._crc(data, self._sum)
        self._size += len(data)
        return self._begin() + self._deflate.compress(data)

    def flush(self) -> bytes:
        trailer = self._sum.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        return self._begin() + self._deflate.flush() + trailer


class _ParallelGzip:
    """One gzip stream of blocks that are compressed at the same time.

    A block takes `BLOCK` bytes of content, knows nothing of those before it, and ends at a byte (RFC 1951, 3.2.4), so
    that the stream is the same however many threads there are.
    """

    def __init__(self, level: int) -> None:
        from isal import isal_zlib

        self._library = isal_zlib
        self._level = level
        self._waiting = bytearray()
        self._blocks: deque[Future[bytes]] = deque()
        self._sum = 0
        self._size = 0
        self._head = _GZIP_HEADER

    def compress(self, data: bytes, /) -> bytes:
        self._sum = self._library.crc32(data, self._sum)
        self._size += len(data)
        if not self._waiting and len(data) == BLOCK:
            self._blocks.append(_workers().submit(self._block, data))
        else:
            self._waiting += data
            while len(self._waiting) >= BLOCK:
                block = bytes(memoryview(self._waiting)[:BLOCK])
                del self._waiting[:BLOCK]
                self._blocks.append(_workers().submit(self._block, block))
        return self._ready(_PENDING)

    def flush(self) -> bytes:
        out = [self._ready(0)]
        if self._waiting:
            out.append(self._block(bytes(self._waiting)))
        trailer = self._sum.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        return b"".join([*out, self._begin(), _LAST_BLOCK, trailer])

    def _begin(self) -> bytes:
        head, self._head = self._head, b""
        return head

    def _ready(self, pending: int) -> bytes:
        """What is done, in order; waits until no more than so many blocks are under way."""
        out = [self._begin()]
        while self._blocks and (len(self._blocks) > pending or self._blocks[0].done()):
            out.append(self._blocks.popleft().result())
        return b"".join(out)

    def _block(self, data: bytes) -> bytes:
        deflate = self._library.compressobj(self._level, self._library.DEFLATED, -15)
        body: bytes = deflate.compress(data)
        tail: bytes = deflate.flush(self._library.Z_SYNC_FLUSH)
        return body + tail


class _Zstd:
    def __init__(self, level: int) -> None:
        import zstandard

        # With threads the library cuts its input into jobs of a size that does not depend on how many there are.
        threads = max(1, len(os.sched_getaffinity(0)))
        compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, threads=threads)
        self._stream = compressor.compressobj()

    def compress(self, data: bytes, /) -> bytes:
        return self._stream.compress(data)

    def flush(self) -> bytes:
        return self._stream.flush()


@cache
def _workers() -> "ThreadPoolExecutor":
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0))), thread_name_prefix="deflate")


def compressor(kind: Compression, level: int | None = None) -> Compressor:
    """A compressor of one stream.

    Args:
        kind: the format.
        level: 0 to 9 for gzip, 1 to 22 for zstd; None for a fast one that still compresses well.

    Raises:
        ValueError: for a kind or level that there is not.
    """
    match kind:
        case "uncompressed":
            return _Plain()
        case "gzip":
            if level is not None and not 0 <= level <= 9:
                raise ValueError(f"gzip has the levels 0 to 9, not {level}")
            level = _FAST if level is None else level
            return _ParallelGzip(level) if level in _LIBRARY_LEVELS else _Gzip(level)
        case "zstd":
            if level is not None and not 1 <= level <= 22:
                raise ValueError(f"zstd has the levels 1 to 22, not {level}")
            return _Zstd(3 if level is None else level)
    raise ValueError(f"{kind!r} is no compression: use uncompressed, gzip or zstd")
