"""A started process: what it writes is handed on while it runs, and nothing of it is left when it ends.

The program that was started is the runtime's monitor; the sandbox's first process is its child, and the kernel ends all
others of the sandbox with that one. One loop waits for the outputs and the monitor's end, so nothing is polled for, and
what processes in the background hold open does not matter: when the monitor has ended they have too.
"""

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from .base import ExecError
from .processes import children, command_name, end_sandbox, send
from .streams import CHUNK, Streams

_CHECK_SECONDS = 0.1
_KILL_SECONDS = 2.0
_SIGNAL_SECONDS = 0.01
_SIGNAL_TRIES = 100

Output = Callable[[int, bytes], None]


class Child:
    """A runtime's monitor and the sandbox below it.

    Args:
        command: the runtime's command line.
        streams: what it is started with.
        runtime: what the runtime's processes are called until they become the process. What is written before that
            may be its own words, about a process that can't be started, and is held back until it is known.
        ended: called once when everything is over with the monitor's exit code and the words that were held back;
            gives the exit code of the process, or raises ExecError, and then those words are not handed on.
        enter: called in the monitor's process before its program is.
        resized: whether the monitor has a second terminal for the process, and is to be told of a new size.

    Raises:
        ExecError: where the runtime itself can't be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        streams: Streams,
        output: Output,
        ended: Callable[[int, bytes], int],
        *,
        runtime: str,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        enter: Callable[[], None] | None = None,
        resized: bool = False,
    ) -> None:
        self._streams = streams
        self._output = output
        self._ended = ended
        self._runtime = runtime
        self._resized = resized
        self._held: list[tuple[int, bytes]] = []
        self._begun = False
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._over = False
        self._deadline = 0.0
        self._code = 0
        self._error: BaseException | None = None
        self._pump_thread = 0
        try:
            self._monitor = subprocess.Popen(
                command,
                stdin=streams.theirs[0],
                stdout=streams.theirs[1],
                stderr=streams.theirs[2],
                env=environment,
                pass_fds=pass_fds,
                start_new_session=True,
                umask=0o022,
                preexec_fn=enter,
            )
            streams.started()
            self._handle = _watch(self._monitor)
        except (OSError, subprocess.SubprocessError) as error:
            streams.started()
            streams.close()
            raise ExecError(f"cannot start {command[0]}: {getattr(error, 'strerror', None) or error}") from None

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
            self._hand_on(cancel)
        except BaseException as error:
            # Ctrl-C, or the listener failed: the sandbox ends before anything is taken away under it.
            self._error = error
            self.end()
        code = self._reap()
        try:
            self._code = self._ended(code, b"".join(data for _, data in self._held))
            if self._error is None:
                self._give_held()
        except BaseException as error:
            if self._deadline and isinstance(error, ExecError):
                # It was killed while it was being started.
                self._code = 128 + signal.SIGKILL
            else:
                self._error = self._error or error
        finally:
            self._streams.close()
            self._done.set()
        return self.wait()

    def wait(self) -> int:
        """See Running; also raises what a listener to the output raised."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._code

    def _hand_on(self, cancel: threading.Event | None) -> None:
        streams = self._streams
        ended: set[int] = set()
        poll = self._poll(ended)
        while True:
            timeout = None if cancel is None and not self._deadline else _CHECK_SECONDS * 1000
            ready = {number for number, _ in poll.poll(timeout)}
            over = self._handle in ready
            changed = over and streams.accept()
            if streams.waiting in ready:
                changed = streams.accept()
            for end in [end for end in streams.outputs if end in ready]:
                if self._read(end) is False:
                    ended.add(end)
                    changed = True
            if over:
                for end in streams.outputs:
                    while self._read(end):
                        continue
                return
            if changed:
                poll = self._poll(ended)
            if self._deadline or (cancel is not None and cancel.is_set()):
                self.end()

    def _poll(self, ended: set[int]) -> select.poll:
        poll = select.poll()
        for end in {self._handle, self._streams.waiting, *self._streams.outputs} - {-1, *ended}:
            poll.register(end, select.POLLIN)
        return poll

    def _read(self, end: int) -> bool | None:
        """Hand on a piece of an output; None where there is none now, False at its end."""
        data = self._streams.read(end)
        if not data:
            return None if data is None else False
        number = self._streams.outputs[end]
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
        return length <= CHUNK and (not name or name.startswith(self._runtime))

    def _give_held(self) -> None:
        held, self._held = self._held, []
        for number, data in held:
            self._output(number, data)

    def _reap(self) -> int:
        """Wait for the monitor, which has ended or was told to; gives its exit code."""
        while not select.select([self._handle], [], [], _CHECK_SECONDS)[0]:
            self.end()
        with self._lock:
            code = self._monitor.wait()
            self._over = True
            os.close(self._handle)
        return code if code >= 0 else 128 - code

    def write(self, data: bytes) -> None:
        """See Running. Waits where the process does not read; what it no longer reads is dropped."""
        self._streams.write(data, self._done.is_set)

    def close_stdin(self) -> None:
        """See Running; at a terminal it is the key for it."""
        self._streams.close_stdin(self._done.is_set)

    def resize(self, rows: int, columns: int) -> None:
        """See Running."""
        if self._streams.resize(rows, columns) and self._resized:
            with self._lock:
                if not self._over:
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
        """See Running. Returns when everything has ended."""
        self.end()
        while self._pump_thread != threading.get_ident() and not self._done.wait(_CHECK_SECONDS):
            self.end()

    def end(self) -> None:
        """End what there is of the sandbox; once is not enough while the runtime is still making it."""
        with self._lock:
            if self._over:
                return
            now = time.monotonic()
            self._deadline = self._deadline or now + _KILL_SECONDS
            end_sandbox(self.pid)
            if now > self._deadline:
                self._monitor.kill()


def _watch(process: "subprocess.Popen[bytes]") -> int:
    """A handle that can be read when the process has ended. Raises OSError."""
    try:
        return os.pidfd_open(process.pid)
    except OSError:
        process.kill()
        process.wait()
        raise
