"""Where exporters write: archives appear whole or not at all, folders are made, a docker archive may be loaded."""

import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from ..wire.session import FileTree
from . import places
from .errors import ClientError
from .options import STDIN, Output

ALLOW_DELETE = "buildx.local.delete"
"""The entitlement with which `mode=delete` may clear any folder. It is the client's own and is sent to no daemon."""
_COMPLETE = "buildkit-exporter-multi-platform"


def check(outputs: Sequence[Output], stdout: BinaryIO, allow: Sequence[str] = ()) -> None:
    """Refuse outputs that cannot work, before anything is built.

    Raises:
        ClientError: a destination is missing, of the wrong kind, used twice, or would be cleared without `allow`.
    """
    on_stdout = 0
    for output in outputs:
        if output.type == "local":
            _check_mode(output, allow)
        if output.is_folder:
            if not output.dest:
                raise ClientError(f"output type={output.type} needs dest=FOLDER")
            if output.dest == STDIN:
                raise ClientError(f"output type={output.type} writes a folder and cannot go to standard output")
            if Path(output.dest).exists() and not Path(output.dest).is_dir():
                raise ClientError(f"output folder {output.dest!r} is a file")
            places.check_folder(output.dest, f"output folder {output.dest!r}")
        elif output.is_file and output.dest == STDIN:
            on_stdout += 1
            if stdout.isatty():
                raise ClientError(f"output type={output.type} would write an archive to the terminal: give dest=FILE")
        elif output.is_file and output.dest:
            places.check(output.dest, "output file")
        elif output.is_file and not output.dest and shutil.which("docker") is None:
            raise ClientError("--load needs the docker command", "write an archive with -o type=docker,dest=FILE")
    if on_stdout > 1:
        raise ClientError("more than one output writes to standard output")


def _check_mode(output: Output, allow: Sequence[str]) -> None:
    mode = output.attrs.get("mode", "copy")
    if mode not in ("", "copy", "delete"):
        raise ClientError(f"output type=local: unknown mode {mode!r}", "write mode=copy or mode=delete")
    if mode != "delete" or ALLOW_DELETE in allow:
        return
    here, there = Path.cwd().resolve(), Path(output.dest).resolve()
    if here == there or here not in there.parents:
        raise ClientError(
            f"mode=delete would clear {output.dest!r}, which is not below the current folder",
            f"allow it with --allow {ALLOW_DELETE}",
        )


class Outputs:
    """The open destinations of one build: `commit` after a solve that worked, `discard` after any other."""

    def __init__(self, outputs: Sequence[Output], stdout: BinaryIO) -> None:
        self._outputs = outputs
        self._stdout = stdout
        self._written: dict[int, Path] = {}

    def file(self, index: int) -> BinaryIO:
        """The stream for the archive of one output."""
        output = self._outputs[index]
        if not output.is_file:
            raise KeyError(index)
        if output.dest == STDIN:
            return cast(BinaryIO, _Kept(self._stdout))
        if output.dest and places.is_stream(output.dest):
            return open(output.dest, "wb")
        target = Path(os.path.realpath(output.dest)) if output.dest else None
        folder = None if target is None else target.parent
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            handle, name = tempfile.mkstemp(prefix=f".{target.name}." if target else "brickyard-load-", dir=folder)
        except OSError as error:
            raise OSError(error.errno, error.strerror, output.dest or tempfile.gettempdir()) from error
        self._written[index] = Path(name)
        return os.fdopen(handle, "wb")

    def folder(self, index: int) -> Path:
        """The folder for the files of one output, made where it is missing."""
        output = self._outputs[index]
        if not output.is_folder:
            raise KeyError(index)
        folder = Path(output.dest).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def receive(self, index: int, files: FileTree, metadata: Mapping[str, str]) -> None:
        """Put an exporter's files into its folder, over what is there. With `mode=delete` nothing else stays there.

        Raises:
            OSError: where a file can't be written.
        """
        from ..wire.fsutil.direct import transfer
        from ..wire.fsutil.disk import DiskReceiver

        delete = self._outputs[index].attrs.get("mode") == "delete"
        if delete and metadata.get(_COMPLETE) != "1":
            raise OSError("the solver sends the files in parts: mode=delete cannot tell which others to remove")
        receiver = DiskReceiver(self.folder(index), delete=delete)
        try:
            transfer(files, receiver)
            receiver.finish()
        finally:
            receiver.discard()

    def commit(self) -> list[str]:
        """Put every archive in its place; gives what `docker load` said."""
        said = []
        for index, temporary in list(self._written.items()):
            output = self._outputs[index]
            if output.dest:
                places.settle(temporary, os.path.realpath(output.dest))
            else:
                said.append(_docker_load(temporary))
                temporary.unlink(missing_ok=True)
            del self._written[index]
        if any(output.dest == STDIN for output in self._outputs):
            self._stdout.flush()
        return said

    def discard(self) -> None:
        """Remove what was written and not committed."""
        for temporary in self._written.values():
            temporary.unlink(missing_ok=True)
        self._written.clear()


class _Kept(io.RawIOBase):
    """Standard output for an exporter that closes its stream: closing this leaves it open."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        self._stream.write(data)
        return len(data)

    def flush(self) -> None:
        self._stream.flush()


def _docker_load(archive: Path) -> str:
    done = subprocess.run(["docker", "load", "-i", str(archive)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClientError(f"docker load failed: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout.strip()
