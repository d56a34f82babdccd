"""A root file system as a value, and its layer: the same tree gives the same bytes on every machine."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import dirname, normpath

from ...oci.tar import Entry, Kind, TarWriter, Writable

_CHUNK = 1 << 20
_FOLDERS = {
    "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o755, "root": 0o700, "run": 0o755, "sys": 0o755,
    "tmp": 0o1777, "usr/bin": 0o755, "usr/sbin": 0o755, "var/tmp": 0o1777,
}  # fmt: skip
_TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\nnobody:x:65534:\n",
}


@dataclass(slots=True)
class Tree:
    """Folders with their modes, files on this machine to copy, texts and symbolic links; paths have no leading slash.

    A new one has what every root file system needs: users, groups, and the usual folders.
    """

    folders: dict[str, int] = field(default_factory=lambda: dict(_FOLDERS))
    files: dict[str, Path] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=lambda: dict(_TEXTS))
    links: dict[str, str] = field(default_factory=dict)

    def add_file(self, path: str, source: Path) -> None:
        """Put a copy of a file of this machine at `path`."""
        self.files[_clean(path)] = source

    def add_link(self, path: str, target: str) -> None:
        """Put a symbolic link at `path`, unless there is a file."""
        if (path := _clean(path)) not in self.files:
            self.links[path] = target

    def write(self, out: Writable) -> None:
        """Write the layer's tar: everything is root's, from 1970, and readable by all."""
        writer = TarWriter(out)
        for path in sorted({*self.files, *self.texts, *self.links, *self._all_folders()}):
            if path in self.files:
                self._write_file(writer, path)
            elif path in self.texts:
                data = self.texts[path].encode()
                writer.add(Entry(path, Kind.FILE, 0o644, size=len(data)))
                writer.write(data)
            elif path in self.links:
                writer.add(Entry(path, Kind.SYMLINK, 0o777, linkname=self.links[path]))
            else:
                writer.add(Entry(path, Kind.DIRECTORY, self.folders.get(path, 0o755)))
        writer.close()

    def _all_folders(self) -> Iterator[str]:
        for path in [*self.folders, *self.files, *self.texts, *self.links]:
            folder = path if path in self.folders else dirname(path)
            while folder:
                yield folder
                folder = dirname(folder)

    def _write_file(self, writer: TarWriter, path: str) -> None:
        source = self.files[path]
        with source.open("rb") as stream:
            size = source.stat().st_size
            writer.add(Entry(path, Kind.FILE, 0o755, size=size))
            while chunk := stream.read(min(_CHUNK, size)):
                writer.write(chunk)
                size -= len(chunk)


def _clean(path: str) -> str:
    return normpath(path).lstrip("/")
