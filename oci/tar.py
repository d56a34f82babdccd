"""Tar archives as streams: POSIX.1-2001 (PAX) and GNU headers are read, PAX headers are written.

The standard library's `tarfile` ends quietly at a damaged header, keeps every member, and reads headers of any size
into memory; an archive from elsewhere must be refused instead.
"""

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

BLOCK = 512
_CHUNK = 1 << 20
_MAX_EXTENSION = 1 << 20
_XATTR = "SCHILY.xattr."
_FIELDS = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12s")
_ZEROS = bytes(BLOCK)
_MAX_SPARSE_PIECES = 1 << 20


class TarError(ValueError):
    """An archive that is damaged, hostile, or of a kind that is not supported."""


class Readable(Protocol):
    """What an archive is read from."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; none at the end."""
        ...


class Writable(Protocol):
    """What an archive is written to."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""
        ...


class Kind(Enum):
    """What an entry is; the value is the header's type flag."""

    FILE = b"0"
    LINK = b"1"
    SYMLINK = b"2"
    CHAR = b"3"
    BLOCK = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"


_KINDS = {kind.value: kind for kind in Kind} | {b"\0": Kind.FILE, b"7": Kind.FILE, b"S": Kind.FILE}


@dataclass(slots=True)
class Entry:
    """One entry of an archive. Names are decoded with surrogate escapes, so that any bytes survive."""

    name: str
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    linkname: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    pieces: list[tuple[int, int]] | None = None
    """Offset and length of what a sparse file holds; None for a file without holes."""


class TarReader:
    """Walks an archive in one pass. Iterate for the entries; `data` gives the content of the latest."""

    def __init__(self, stream: Readable, max_size: int | None = None) -> None:
        """Read `stream`, and refuse to read, or to have written, more than `max_size` bytes."""
        self._stream = stream
        self._hash = hashlib.sha256()
        self._limit = max_size
        self._count = 0
        self._logical = 0
        self._view = memoryview(b"")
        self._left = 0
        self._padding = 0
        self._pieces: list[tuple[int, int]] | None = None

    @property
    def digest(self) -> str:
        """The digest of the archive, once the iteration has ended: all of the stream, also behind its end mark."""
        return f"sha256:{self._hash.hexdigest()}"

    def __iter__(self) -> Iterator[Entry]:
        """The entries in order.

        Raises:
            TarError: for a damaged archive, or one above the limit.
        """
        while True:
            self._skip(self._left + self._padding)
            self._left = self._padding = 0
            entry = self._next()
            if entry is None:
                break
            yield entry
        while self._fill():
            pass

    def data(self) -> Iterator[tuple[int, memoryview]]:
        """The content of the latest entry: offset and bytes, in order, holes left out."""
        if self._pieces is None:
            offset = 0
            for piece in self._take(self._left):
                yield offset, piece
                offset += len(piece)
        else:
            for start, length in self._pieces:
                offset = start
                for piece in self._take(length):
                    yield offset, piece
                    offset += len(piece)

    def _fill(self) -> bool:
        chunk = self._stream.read(_CHUNK)
        if not chunk:
            return False
        self._hash.update(chunk)
        self._count += len(chunk)
        if self._limit is not None and self._count > self._limit:
            raise TarError(f"the archive is larger than the limit of {self._limit} bytes")
        self._view = memoryview(chunk)
        return True

    def _exactly(self, size: int) -> bytes:
        if size <= len(self._view):
            out = bytes(self._view[:size])
            self._view = self._view[size:]
            return out
        parts = []
        while size:
            if not self._view and not self._fill():
                raise TarError("the archive is cut short")
            part = bytes(self._view[:size])
            self._view = self._view[size:]
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _take(self, size: int) -> Iterator[memoryview]:
        while size:
            if not self._view and not self._fill():
                raise TarError("the archive is cut short")
            piece = self._view[:size]
            self._view = self._view[size:]
            size -= len(piece)
            self._left -= len(piece)
            yield piece

    def _skip(self, size: int) -> None:
        while size:
            if not self._view and not self._fill():
                raise TarError("the archive is cut short")
            step = min(size, len(self._view))
            self._view = self._view[step:]
            size -= step

    def _block(self) -> bytes | None:
        """The next header block, or None at the end of the archive."""
        if not self._view and not self._fill():
            return None
        block = self._exactly(BLOCK)
        if block != _ZEROS:
            return block
        if (self._view or self._fill()) and self._exactly(BLOCK) != _ZEROS:
            raise TarError("damaged archive: a block of zeros between the entries")
        return None

    def _extension(self, size: int) -> bytes:
        if size > _MAX_EXTENSION:
            raise TarError(f"an extended header of {size} bytes is larger than the limit of {_MAX_EXTENSION}")
        data = self._exactly(size)
        self._skip(-size % BLOCK)
        return data

    def _next(self) -> Entry | None:
        records: dict[str, bytes] = {}
        long_name = long_link = None
        while True:
            block = self._block()
            if block is None:
                if records or long_name is not None or long_link is not None:
                    raise TarError("the archive is cut short behind an extended header")
                return None
            flag = block[156:157]
            if flag in (b"x", b"g", b"L", b"K"):
                _checksum(block)
                data = self._extension(_number(block[124:136], "size"))
                if flag == b"x":
                    records = _records(data)
                elif flag == b"L":
                    long_name = data.split(b"\0", 1)[0]
                elif flag == b"K":
                    long_link = data.split(b"\0", 1)[0]
                continue
            return self._entry(block, records, long_name, long_link)

    def _entry(self, block: bytes, records: dict[str, bytes], name: bytes | None, link: bytes | None) -> Entry:
        _checksum(block)
        fields = _FIELDS.unpack(block)
        flag, magic = fields[7], fields[9]
        kind = _KINDS.get(flag)
        if kind is None:
            raise TarError(f"an entry of the unsupported type {flag!r}")
        if name is None:
            name = _string(fields[0])
            # GNU headers keep other things where POSIX keeps the front of a long name.
            if magic == b"ustar\x0000" and (prefix := _string(fields[14])):
                name = prefix + b"/" + name
        if link is None:
            link = _string(fields[8])
        name = records.get("GNU.sparse.name") or records.get("path") or name
        link = records.get("linkpath") or link
        size = _decimal(records["size"], "size") if records.get("size") else _number(fields[4], "size")
        if b"\0" in name or b"\0" in link:
            raise TarError(f"a name with a NUL byte: {name!r}")
        entry = Entry(
            name.decode("utf-8", "surrogateescape"),
            Kind.DIRECTORY if kind is Kind.FILE and name.endswith(b"/") else kind,
            _number(fields[1], "mode") & 0o7777,
            _decimal(records["uid"], "uid") if records.get("uid") else _number(fields[2], "uid"),
            _decimal(records["gid"], "gid") if records.get("gid") else _number(fields[3], "gid"),
            size,
            _time(records["mtime"]) if records.get("mtime") else _seconds(fields[5]),
            link.decode("utf-8", "surrogateescape"),
            (_number(fields[12], "device"), _number(fields[13], "device"))
            if kind in (Kind.CHAR, Kind.BLOCK)
            else (0, 0),
            {
                key[len(_XATTR) :]: value
                for key, value in records.items()
                if key.startswith(_XATTR) and len(key) > len(_XATTR)
            },
        )
        if max(entry.uid, entry.gid) >= 2**32 - 1:
            raise TarError(f"{entry.name!r}: owner {entry.uid}:{entry.gid} is out of range")
        if kind is Kind.FILE:
            # A directory's size field is data too where an old archive marks the directory by a slash only.
            self._left, self._padding = size, -size % BLOCK
            self._sparse(entry, block, records, old=flag == b"S")
            self._pieces = entry.pieces
            self._logical += entry.size
            if self._limit is not None and self._logical > self._limit:
                raise TarError(f"the files of the archive are larger than the limit of {self._limit} bytes")
        else:
            entry.size, self._pieces = 0, None
        return entry

    def _sparse(self, entry: Entry, block: bytes, records: dict[str, bytes], *, old: bool) -> None:
        """Read the map of a sparse file, in any of GNU's four forms."""
        if old:
            entry.pieces, entry.size = self._old_sparse(block)
        elif records.get("GNU.sparse.major") == b"1" and records.get("GNU.sparse.minor") == b"0":
            entry.pieces = self._inline_sparse()
            entry.size = _decimal(records.get("GNU.sparse.realsize", b""), "size")
        elif "GNU.sparse.map" in records:
            numbers = [_decimal(number, "sparse map") for number in records["GNU.sparse.map"].split(b",") if number]
            entry.pieces = list(zip(numbers[::2], numbers[1::2], strict=False))
            entry.size = _decimal(records.get("GNU.sparse.size", b""), "size")
        else:
            return
        at = 0
        for offset, length in entry.pieces:
            if offset < at or offset + length > entry.size:
                raise TarError(f"{entry.name!r}: damaged map of a sparse file")
            at = offset + length
        if sum(length for _, length in entry.pieces) != self._left:
            raise TarError(f"{entry.name!r}: the map of a sparse file does not fit its data")

    def _old_sparse(self, block: bytes) -> tuple[list[tuple[int, int]], int]:
        pieces: list[tuple[int, int]] = []
        slots, more = block[386:482], block[482]
        while True:
            for at in range(0, len(slots), 24):
                if not slots[at]:
                    break
                pieces.append((_number(slots[at : at + 12], "sparse map"), _number(slots[at + 12 : at + 24], "size")))
            if not more:
                return pieces, _number(block[483:495], "size")
            if len(pieces) > _MAX_SPARSE_PIECES:
                raise TarError("the map of a sparse file is too long")
            extra = self._exactly(BLOCK)
            slots, more = extra[:504], extra[504]

    def _inline_sparse(self) -> list[tuple[int, int]]:
        text = b""

        def number(at: int) -> tuple[int, int]:
            nonlocal text
            while (end := text.find(b"\n", at)) < 0:
                if self._left < BLOCK or len(text) - at > 32:
                    raise TarError("damaged map of a sparse file")
                text = text[at:] + self._exactly(BLOCK)
                self._left -= BLOCK
                at = 0
            return _decimal(text[at:end], "sparse map"), end + 1

        count, at = number(0)
        if count > _MAX_SPARSE_PIECES:
            raise TarError("the map of a sparse file is too long")
        pieces = []
        for _ in range(count):
            offset, at = number(at)
            length, at = number(at)
            pieces.append((offset, length))
        return pieces


class TarWriter:
    """Writes an archive; equal entries give equal bytes."""

    def __init__(self, out: Writable) -> None:
        """Write to `out`, which stays open."""
        self._out = out
        self._padding = 0
        self._left = 0

    def add(self, entry: Entry) -> None:
        """Begin an entry; `entry.size` bytes of content follow through `write`."""
        if self._left:
            raise TarError(f"{self._left} bytes of the entry before {entry.name!r} are missing")
        self._out.write(bytes(self._padding))
        name, link = _encode(entry.name), _encode(entry.linkname)
        if entry.kind is Kind.DIRECTORY and not name.endswith(b"/"):
            name += b"/"
        records = {f"{_XATTR}{key}": value for key, value in entry.xattrs.items() if "=" not in key and "\0" not in key}
        short, prefix = _fit(name)
        if short is None:
            records["path"] = name
        if len(link) > 100 or not link.isascii():
            records["linkpath"] = link
        numbers = {"uid": entry.uid, "gid": entry.gid, "size": entry.size}
        for key, value in numbers.items():
            if value >= 8 ** (11 if key == "size" else 7):
                records[key] = str(value).encode()
                numbers[key] = 0
        seconds, fraction = divmod(entry.mtime_ns, 10**9)
        if fraction or not 0 <= seconds < 8**11:
            records["mtime"] = _format_time(entry.mtime_ns)
            seconds = seconds if 0 <= seconds < 8**11 else 0
        if records:
            # The two ways of writing a long name are not mixed.
            if len(name) > 100:
                short, prefix, records["path"] = None, b"", name
            self._extended(name, records)
        self._out.write(
            _header(
                (short if short is not None else _cut(name), prefix),
                (entry.mode, numbers["uid"], numbers["gid"], numbers["size"], seconds),
                entry.kind.value,
                _cut(link),
                entry.device,
            )
        )
        self._left, self._padding = entry.size, -entry.size % BLOCK

    def write(self, data: bytes) -> None:
        """Add content to the latest entry."""
        if len(data) > self._left:
            raise TarError("more content than the entry's size")
        self._left -= len(data)
        self._out.write(data)

    def close(self) -> None:
        """End the archive; `out` stays open."""
        if self._left:
            raise TarError(f"{self._left} bytes of the last entry are missing")
        self._out.write(bytes(self._padding + 2 * BLOCK))

    def _extended(self, name: bytes, records: Mapping[str, bytes]) -> None:
        data = b"".join(_record(key, value) for key, value in sorted(records.items()))
        # A directory's own name counts as part of the folder.
        folder, _, base = name.rpartition(b"/")
        title = _ascii(b"/".join(part for part in (folder, b"PaxHeaders.0", base) if part))[:100].rstrip(b"/")
        self._out.write(_header((title, b""), (0, 0, 0, len(data), 0), b"x", b"", None))
        self._out.write(data + bytes(-len(data) % BLOCK))


def _string(raw: bytes) -> bytes:
    return raw.split(b"\0", 1)[0]


def _number(raw: bytes, what: str) -> int:
    """A number of a header: octal digits, or base 256 where the first bit is set; never negative."""
    if raw[0] & 0x80:
        if raw[0] & 0x40:
            raise TarError(f"a negative {what} in a header")
        return int.from_bytes(bytes([raw[0] & 0x3F]) + raw[1:], "big")
    text = raw.strip(b" \0")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise TarError(f"damaged header: {what} {raw!r}") from None


def _seconds(raw: bytes) -> int:
    """A header's time in nanoseconds; one before 1970 counts as 1970."""
    if raw[0] & 0xC0 == 0xC0:
        return 0
    return _bound(_number(raw, "mtime") * 10**9)


def _bound(time_ns: int) -> int:
    return time_ns if -(2**63) <= time_ns < 2**63 else 0


def _decimal(raw: bytes, what: str) -> int:
    if not raw.isdigit() or len(raw) > 19:
        raise TarError(f"damaged extended header: {what} {raw[:40]!r}")
    return int(raw)


def _time(raw: bytes) -> int:
    sign = -1 if raw.startswith(b"-") else 1
    whole, _, fraction = raw.removeprefix(b"-").partition(b".")
    if (fraction and not fraction.isdigit()) or not whole.isdigit() or len(whole) > 19:
        raise TarError(f"damaged extended header: mtime {raw[:40]!r}")
    return _bound(sign * (int(whole) * 10**9 + int(fraction[:9].ljust(9, b"0") or b"0")))


def _checksum(block: bytes) -> None:
    try:
        wanted = int(block[148:156].strip(b" \0") or b"0", 8)
    except ValueError:
        raise TarError("not a tar archive, or a damaged one: no checksum in a header") from None
    rest = block[:148] + b" " * 8 + block[156:]
    # Some old writers summed the bytes as signed ones.
    if wanted != sum(rest) and wanted != sum(rest) - 256 * sum(byte > 127 for byte in rest):
        raise TarError("not a tar archive, or a damaged one: wrong checksum of a header")


def _records(data: bytes) -> dict[str, bytes]:
    """The records of a PAX header: `length key=value` and a line end, the length counting all of it."""
    out: dict[str, bytes] = {}
    sparse: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        equals = data.find(b"=", space, end)
        if not space < equals < end <= len(data) or data[end - 1 : end] != b"\n":
            raise TarError("damaged extended header")
        key, value = data[space + 1 : equals].decode("utf-8", "surrogateescape"), data[equals + 1 : end - 1]
        if key in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
            sparse.append(value)
        else:
            out[key] = value
        at = end
    if sparse:
        out["GNU.sparse.map"] = b",".join(sparse)
    return out


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _ascii(name: bytes) -> bytes:
    return bytes(byte for byte in name if byte < 128)


def _fit(name: bytes) -> tuple[bytes | None, bytes]:
    """Name and prefix fields for a name, or no name where it needs an extended header."""
    if not name.isascii():
        return None, b""
    if len(name) <= 100:
        return name, b""
    if len(name) > 256:
        return None, b""
    cut = name.rfind(b"/", 0, min(len(name) - 1, 156))
    if cut <= 0 or len(name) - cut - 1 > 100:
        return None, b""
    return name[cut + 1 :], name[:cut]


def _cut(name: bytes) -> bytes:
    """As much of a long name as fits; a cut behind a slash must not make a file look like a directory."""
    name = _ascii(name)
    short = name[:100]
    return short.rstrip(b"/") if len(name) > 100 and short.endswith(b"/") else short


def _format_time(time_ns: int) -> bytes:
    sign, whole, fraction = "-" if time_ns < 0 else "", abs(time_ns) // 10**9, abs(time_ns) % 10**9
    return f"{sign}{whole}.{fraction:09d}".rstrip("0").rstrip(".").encode() if fraction else f"{sign}{whole}".encode()


def _record(key: str, value: bytes) -> bytes:
    body = b" " + _encode(key) + b"=" + value + b"\n"
    size = len(body) + len(str(len(body)))
    if len(str(size)) + len(body) != size:
        size = len(str(size)) + len(body)
    return str(size).encode() + body


def _header(
    name: tuple[bytes, bytes],
    numbers: tuple[int, int, int, int, int],
    flag: bytes,
    link: bytes,
    device: tuple[int, int] | None,
) -> bytes:
    """A header block; without a device its fields stay empty, as in the headers of extended headers."""
    mode, uid, gid, size, seconds = numbers
    major, minor = (b"", b"") if device is None else (b"%07o" % device[0], b"%07o" % device[1])
    block = bytearray(
        _FIELDS.pack(
            name[0],
            b"%07o" % mode,
            b"%07o" % uid,
            b"%07o" % gid,
            b"%011o" % size,
            b"%011o" % seconds,
            b" " * 8,
            flag,
            link,
            b"ustar\x0000",
            b"",
            b"",
            major,
            minor,
            name[1],
            b"",
        )
    )
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
