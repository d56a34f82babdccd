"""The shared libraries that a program needs, read from its ELF headers: nothing of it is run."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

_LOAD, _DYNAMIC, _INTERP = 1, 2, 3
_NEEDED, _STRTAB, _RPATH, _RUNPATH = 1, 5, 15, 29


class ElfError(ValueError):
    """A file that is no ELF program, or one with a library that is not found."""


@dataclass(slots=True)
class _Program:
    machine: tuple[int, int, int]
    interpreter: str = ""
    needed: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


def is_elf(path: Path) -> bool:
    """Whether a file is an ELF program or library."""
    with path.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"


def libraries(program: Path) -> dict[str, Path]:
    """What a program loads before it runs, its loader included: the path it is looked for at, and the file there.

    Raises:
        ElfError: a library is not found, or the file is not a program.
    """
    found: dict[str, Path] = {}
    top = _read(program)
    if top.interpreter:
        found[top.interpreter] = Path(top.interpreter)
    queue = [(top, program)]
    seen: set[str] = set()
    while queue:
        one, path = queue.pop()
        for name in one.needed:
            if name in seen:
                continue
            seen.add(name)
            place = _locate(name, one, path, top)
            found[str(place)] = place
            queue.append((_read(place), place))
    return found


def find_library(name: str, like: Path) -> Path | None:
    """A library in the default folders that fits a program, None where there is none."""
    wanted = _read(like).machine
    for folder in _default_folders():
        place = Path(folder) / name
        if place.is_file() and is_elf(place) and _read(place).machine == wanted:
            return place
    return None


def _locate(name: str, program: _Program, path: Path, top: _Program) -> Path:
    if "/" in name:
        return Path(name)
    own = [text.replace("$ORIGIN", str(path.parent)).replace("${ORIGIN}", str(path.parent)) for text in program.paths]
    for folder in [*own, *_default_folders()]:
        place = Path(folder) / name
        if place.is_file() and is_elf(place) and _read(place).machine == top.machine:
            return place
    raise ElfError(f"{path} needs the library {name}, which is not where programs look by default")


def _default_folders() -> Iterator[str]:
    # Only the folders that a loader searches without its cache: an image has no /etc/ld.so.cache.
    for pattern in ("/lib/*-linux-*", "/usr/lib/*-linux-*"):
        yield from sorted(glob(pattern))
    yield from ("/lib64", "/usr/lib64", "/lib", "/usr/lib")


def _read(path: Path) -> _Program:
    data = path.read_bytes()
    if data[:4] != b"\x7fELF" or data[4] not in (1, 2) or data[5] not in (1, 2):
        raise ElfError(f"{path} is no ELF program")
    wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
    try:
        return _parse(data, wide, order)
    except (struct.error, IndexError) as error:
        raise ElfError(f"{path}: damaged ELF headers") from error


def _parse(data: bytes, wide: bool, order: str) -> _Program:
    word = order + ("Q" if wide else "I")
    (table,) = struct.unpack_from(word, data, 32 if wide else 28)
    size, count = struct.unpack_from(f"{order}HH", data, 54 if wide else 42)
    (machine,) = struct.unpack_from(f"{order}H", data, 18)
    program = _Program((data[4], data[5], machine))
    loads: list[tuple[int, int, int]] = []
    dynamic: tuple[int, int] | None = None
    for at in range(table, table + size * count, size):
        if wide:
            kind, _, offset, address, _, length = struct.unpack_from(f"{order}IIQQQQ", data, at)
        else:
            kind, offset, address, _, length = struct.unpack_from(f"{order}IIIII", data, at)
        if kind == _LOAD:
            loads.append((address, offset, length))
        elif kind == _DYNAMIC:
            dynamic = (offset, length)
        elif kind == _INTERP:
            program.interpreter = data[offset : offset + length].rstrip(b"\0").decode()
    if dynamic is not None:
        _parse_dynamic(data, struct.Struct(f"{order}{'qQ' if wide else 'iI'}"), dynamic, loads, program)
    return program


def _parse_dynamic(
    data: bytes, entry: struct.Struct, place: tuple[int, int], loads: list[tuple[int, int, int]], program: _Program
) -> None:
    offset, length = place
    values = list(entry.iter_unpack(data[offset : offset + length - length % entry.size]))
    address = next((value for tag, value in values if tag == _STRTAB), None)
    strings = next((at + address - base for base, at, size in loads if address and base <= address < base + size), None)
    if strings is None:
        return
    for tag, value in values:
        if tag in (_NEEDED, _RPATH, _RUNPATH):
            start = strings + value
            text = data[start : data.index(b"\0", start)].decode()
            if tag == _NEEDED:
                program.needed.append(text)
            else:
                program.paths += [part for part in text.split(":") if part]
