"""A started process: what it writes is handed on while it runs, and nothing of it is left when it ends.

The program that was started is the runtime's monitor; the sandbox's first process is its child, and the kernel ends all
others of the sandbox with that one. One loop waits for the outputs and the monitor's end, so nothing is polled for, and
what processes in the background hold open does not matter: when the monitor has ended they have too.
"""

import errno
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from .base import ExecError
from .processes import children, command_name, end_sandbox, send

_CHUNK = 1 << 16
_CANCEL_SECONDS = 0.1
_KILL_SECONDS = 2.0
_SIGNAL_SECONDS = 0.01
_SIGNAL_TRIES = 100
_END_OF_INPUT = b"\x04"

Output = Callable[[int, bytes], None]


class Child:
    """A runtime's monitor and the sandbox below it.

    Args:
        command: the runtime's command line.
        runtime: what the runtime's processes are called until they become the process. What is written before that
            may be its own words, about a process that can't be started, and is held back until it is known.
        ended: called once when everything is over with the monitor's exit code and the words that were held back;
            gives the exit code of the process, or raises ExecError, and then those words are not handed on.
        controlling: whether the terminal becomes the one of the monitor's session.
        ids: another user, group and supplementary groups for the monitor.
        passes_size_on: whether the monitor has a second terminal for the process, and is told of a new size.

    Raises:
        ExecError: where the runtime itself can't be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        output: Output,
        ended: Callable[[int, bytes], int],
        *,
        runtime: str,
        stdin: bool = False,
        tty: bool = False,
        controlling: bool = False,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        ids: tuple[int, int, Sequence[int]] | None = None,
        passes_size_on: bool = False,
    ) -> None:
        self._output = output
        self._ended = ended
        self._runtime = runtime
        self._held: list[tuple[int, bytes]] = []
        self._begun = False
        self._passes_size_on = passes_size_on
        self._lock = threading.Lock()
        self._input_lock = threading.Lock()
        self._done = threading.Event()
        self._over = False
        self._handle = -1
        self._streams: dict[int, int] = {}
        self._deadline = 0.0
        self._code = 0
        self._error: BaseException | None = None
        self._pump_thread: int | None = None
        self._terminal = -1
        self._stdin = -1
        theirs: list[int] = []
        try:
            if tty:
                self._terminal, slave = os.openpty()
                theirs = [slave] * 3
                if controlling:
                    # A shell that opens it as the leader of a session without one makes it the session's own.
                    command = ["/bin/sh", "-c", ': 0<>"$0"; exec "$@"', os.ttyname(slave), *command]
                self._streams[self._terminal] = 1
            else:
                theirs = [self._input(stdin)]
                for number in (1, 2):
                    ours, end = os.pipe2(os.O_CLOEXEC)
                    self._streams[ours] = number
                    theirs.append(end)
            for ours in self._streams:
                os.set_blocking(ours, False)
            self._monitor = subprocess.Popen(
                command,
                stdin=theirs[0],
                stdout=theirs[1],
                stderr=theirs[2],
                env=environment,
                pass_fds=pass_fds,
                start_new_session=True,
                umask=0o022,
                user=ids[0] if ids else None,
                group=ids[1] if ids else None,
                extra_groups=ids[2] if ids else None,
            )
        except OSError as error:
            self._close()
            raise ExecError(f"cannot start {command[0]}: {error.strerror}") from None
        except BaseException:
            self._close()
            raise
        finally:
            for end in {*theirs}:
                os.close(end)
        try:
            self._handle = os.pidfd_open(self._monitor.pid)
        except OSError as error:
            self._monitor.kill()
            self._monitor.wait()
            self._close()
            raise ExecError(f"cannot watch processes on this kernel: {error.strerror}") from None

    def _input(self, stdin: bool) -> int:
        if not stdin:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        theirs, self._stdin = os.pipe2(os.O_CLOEXEC)
        return theirs

    @property
    def pid(self) -> int:
        """The monitor's process id."""
        return self._monitor.pid

    def begin(self) -> None:
        """Hand on what is written from a thread of its own."""
        threading.Thread(target=self._in_thread, name="process", daemon=True).start()

    def _in_thread(self) -> None:
        # What goes wrong is told by `wait`.
        with suppress(BaseException):
            self.pump(None)

    def pump(self, cancel: threading.Event | None) -> int:
        """Hand on what is written until the end, in this thread; ends the process when `cancel` is set.

        Raises:
            ExecError: where it could not be started.
        """
        self._pump_thread = threading.get_ident()
        try:
            self._watch(cancel)
        except BaseException as error:
            # Ctrl-C, or the listener failed: the sandbox ends before anything is taken away under it.
            self._error = error
            self._end()
        code = self._reap()
        try:
            self._code = self._ended(code, b"".join(data for _, data in self._held))
            if self._error is None:
                self._give_held()
        except BaseException as error:
            self._error = self._error or error
        finally:
            self._close()
            self._done.set()
        return self.wait()

    def wait(self) -> int:
        """See Running; also raises what a listener to the output raised."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._code

    def _watch(self, cancel: threading.Event | None) -> None:
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        for stream in self._streams:
            poll.register(stream, select.POLLIN)
        while True:
            timeout = None if cancel is None and not self._deadline else _CANCEL_SECONDS * 1000
            ready = {number for number, _ in poll.poll(timeout)}
            for stream in [stream for stream in self._streams if stream in ready]:
                if self._read(stream) is False:
                    poll.unregister(stream)
            if self._handle in ready:
                for stream in self._streams:
                    while self._read(stream):
                        continue
                return
            if self._deadline or (cancel is not None and cancel.is_set()):
                self._end()

    def _read(self, stream: int) -> bool | None:
        """Hand on a piece of an output; None where there is none now, False at its end."""
        try:
            data = os.read(stream, _CHUNK)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""  # a terminal that nobody has open any more
        if not data:
            return False
        number = self._streams[stream]
        if not self._begun:
            if self._is_in_runtime(sum(len(piece) for _, piece in self._held) + len(data)):
                self._held.append((number, data))
                return True
            self._begun = True
            self._give_held()
        self._output(number, data)
        return True

    def _is_in_runtime(self, length: int) -> bool:
        """Whether the sandbox's first process is still the runtime, or there is none (yet, or any more)."""
        name = "".join(command_name(pid) for pid in children(self.pid)[:1])
        return length <= _CHUNK and (not name or name.startswith(self._runtime))

    def _give_held(self) -> None:
        held, self._held = self._held, []
        for number, data in held:
            self._output(number, data)

    def _reap(self) -> int:
        """Wait for the monitor, which has ended or was told to; gives its exit code."""
        while not select.select([self._handle], [], [], _CANCEL_SECONDS)[0]:
            self._end()
        with self._lock:
            code = self._monitor.wait()
            self._over = True
        return code if code >= 0 else 128 - code

    def _close(self) -> None:
        with self._input_lock:
            for end in (*self._streams, self._stdin, self._handle):
                if end >= 0:
                    os.close(end)
            self._streams, self._stdin, self._handle, self._terminal = {}, -1, -1, -1

    def write(self, data: bytes) -> None:
        """See Running. Waits where the process does not read; what it no longer reads is dropped."""
        with self._input_lock, suppress(BrokenPipeError):
            end = self._terminal if self._terminal >= 0 else self._stdin
            view = memoryview(data)
            while end >= 0 and view and not self._done.is_set():
                if self._terminal >= 0:
                    select.select([], [end], [], _CANCEL_SECONDS)
                with suppress(BlockingIOError):
                    view = view[os.write(end, view) :]

    def close_stdin(self) -> None:
        """See Running; at a terminal it is the key for it."""
        if self._terminal >= 0:
            self.write(_END_OF_INPUT)
            return
        with self._input_lock:
            if self._stdin >= 0:
                os.close(self._stdin)
                self._stdin = -1

    def resize(self, rows: int, columns: int) -> None:
        """See Running."""
        with self._input_lock:
            if self._terminal < 0:
                return
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        with self._lock:
            if self._passes_size_on and not self._over:
                send(self.pid, signal.SIGWINCH)

    def signal(self, number: int) -> None:
        """See Running."""
        if number == signal.SIGKILL:
            self.kill()
            return
        for _ in range(_SIGNAL_TRIES):
            with self._lock:
                below = [] if self._over else children(self.pid)
                if below:
                    send(below[0], number)
                if below or self._over:
                    return
            # The runtime has only just been started.
            self._done.wait(_SIGNAL_SECONDS)

    def kill(self) -> None:
        """See Running. Another thread than the one that hands on the output is kept until it has ended."""
        self._end()
        if self._pump_thread not in (None, threading.get_ident()):
            while not self._done.wait(_CANCEL_SECONDS):
                self._end()

    def _end(self) -> None:
        """End what there is of the sandbox; once is not enough while the runtime is still making it."""
        with self._lock:
            if self._over:
                return
            now = time.monotonic()
            self._deadline = self._deadline or now + _KILL_SECONDS
            end_sandbox(self.pid)
            if now > self._deadline:
                self._monitor.kill()
