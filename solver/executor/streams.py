"""Our ends of a process's input and outputs: pipes, or a terminal."""

import errno
import fcntl
import os
import select
import stat
import struct
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

CHUNK = 1 << 16
_WAIT_SECONDS = 0.1
_END_OF_INPUT = b"\x04"


class Streams:
    """Pipes, or a terminal, to a process that is started with `theirs` as its standard input, output and error.

    Args:
        tty: whether it gets a terminal; all that it writes comes from stream 1 then.
        stdin: whether there is a standard input; without, it is empty.
        console: a socket that is listened on for the terminal, which the runtime makes; without, it is made here.
    """

    def __init__(self, *, tty: bool, stdin: bool, console: "socket.socket | None" = None) -> None:
        self.outputs: dict[int, int] = {}
        self.terminal_name = ""
        self.theirs: list[int] = []
        self._tty = tty
        self._terminal = -1
        self._size: tuple[int, int] | None = None
        self._console = console
        self._stdin = -1
        self._lock = threading.Lock()
        self._has_terminal = threading.Event()
        try:
            if tty and console is None:
                terminal, slave = os.openpty()
                self.theirs = [slave] * 3
                self.terminal_name = os.ttyname(slave)
                self._use(terminal)
                return
            if stdin and not tty:
                theirs, self._stdin = os.pipe2(os.O_CLOEXEC)
                self.theirs.append(theirs)
            else:
                self.theirs.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            for number in (1, 2):
                ours, theirs = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(ours, False)
                self.outputs[ours] = number
                self.theirs.append(theirs)
        except OSError:
            self.started()
            self.close()
            raise

    def give(self, uid: int, gid: int) -> None:
        """Let another user own the process's ends, who may open them again by name, as /dev/stdout. Raises OSError."""
        for end in {*self.theirs}:
            kind = os.fstat(end).st_mode
            if stat.S_ISFIFO(kind) or self._tty:
                os.fchown(end, uid, gid)

    def started(self) -> None:
        """Close the process's ends, which it has itself by now."""
        for end in {*self.theirs}:
            os.close(end)
        self.theirs = []

    @property
    def waiting(self) -> int:
        """What is to be watched for a terminal that is yet to come, -1 where none is."""
        return -1 if self._console is None else self._console.fileno()

    def accept(self) -> bool:
        """Take the terminal, if the runtime has sent it; whether there is something else to watch now."""
        if self._console is None:
            return False
        import socket

        changed = False
        with suppress(BlockingIOError):
            if self._console.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                connection, _ = self._console.accept()
                connection.setblocking(False)
                self._console.close()
                self._console = connection
                changed = True
            _, handles, _, _ = socket.recv_fds(self._console, 1, 1)
            self._console.close()
            self._console = None
            changed = True
            for handle in handles:
                os.set_inheritable(handle, False)
                self._use(handle)
        return changed

    def _use(self, terminal: int) -> None:
        os.set_blocking(terminal, False)
        with self._lock:
            self._terminal = terminal
            self.outputs[terminal] = 1
            if self._size is not None:
                _set_size(terminal, *self._size)
        self._has_terminal.set()

    def read(self, end: int) -> bytes | None:
        """A piece of an output; None where there is none now, empty at its end."""
        try:
            return os.read(end, CHUNK)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return b""  # a terminal that nobody has open any more

    def write(self, data: bytes, gone: Callable[[], bool]) -> None:
        """Hand on input; waits where it is not read, until `gone` says that it will not be."""
        while self._tty and not gone() and not self._has_terminal.wait(_WAIT_SECONDS):
            continue
        with self._lock, suppress(BrokenPipeError):
            view = memoryview(data)
            while view and not gone():
                end = self._terminal if self._tty else self._stdin
                if end < 0:
                    return
                if self._tty and not select.select([], [end], [], _WAIT_SECONDS)[1]:
                    continue
                with suppress(BlockingIOError):
                    view = view[os.write(end, view) :]

    def close_stdin(self, gone: Callable[[], bool]) -> None:
        """The end of the input; at a terminal it is the key for it."""
        if self._tty:
            self.write(_END_OF_INPUT, gone)
            return
        with self._lock:
            if self._stdin >= 0:
                os.close(self._stdin)
                self._stdin = -1

    def resize(self, rows: int, columns: int) -> bool:
        """Set the size of the terminal; False where there is none."""
        with self._lock:
            self._size = (rows, columns)
            if self._terminal >= 0:
                _set_size(self._terminal, rows, columns)
            return self._tty

    def close(self) -> None:
        """Close our ends."""
        with self._lock:
            for end in (*self.outputs, self._stdin):
                if end >= 0:
                    os.close(end)
            self.outputs, self._stdin, self._terminal = {}, -1, -1
            if self._console is not None:
                self._console.close()
                self._console = None


def _set_size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
