"""`LLBBridge.ExecProcess`: processes in a frontend's containers, their streams, terminals and signals over one call."""

import queue
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from ...wire import errors
from ...wire.h2.server import Call, StatusError
from ...wire.pb import gateway_pb2 as gateway
from ...wire.pb import rpc_status_pb2
from ..base import SolveError
from ..errdefs import to_status

if TYPE_CHECKING:
    from ..executor.base import Running

UNKNOWN_EXIT = 255
"""The exit code of a process whose own isn't known."""

_AHEAD = 256
"""How many messages a process may be ahead of the client."""

_STDIN = 0


class Starts(Protocol):
    """The containers that processes are started in."""

    def start(self, init: gateway.InitMessage, output: Callable[[int, bytes], None]) -> "Running":
        """Start a process. Raises SolveError, or BridgeError for a container that isn't there."""


class _Over(Exception):
    """The call is over: nothing can be sent any more."""


class _Process:
    def __init__(self, id: str, fds: frozenset[int]) -> None:
        self.id = id
        self.fds = fds
        self.announced = threading.Event()
        self.running: Running | None = None


class _Processes:
    """The processes of one call. Messages to the client go through a queue, which holds processes back when full."""

    def __init__(self, containers: Starts) -> None:
        self._containers = containers
        self._processes: dict[str, _Process] = {}
        self._queue: queue.Queue[gateway.ExecMessage | Exception | None] = queue.Queue(_AHEAD)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._waiting = 1
        """The reader of requests, and each process that hasn't ended."""

    def messages(self) -> Iterator[gateway.ExecMessage]:
        """What goes to the client, until all is over."""
        while True:
            item = self._queue.get()
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            yield item

    def read(self, requests: Iterator[gateway.ExecMessage]) -> None:
        """Do what the client says, until it says no more."""
        try:
            for message in requests:
                self._handle(message)
        except _Over:
            return
        except Exception as error:
            # How the library ends the requests of a cancelled call comes here too: then the call is over already.
            self._fail(error)
        finally:
            self._one_less()

    def _fail(self, error: Exception) -> None:
        try:
            self._put(error)
        except _Over:
            return

    def end(self) -> None:
        """The client is gone, or the call failed: no process is left."""
        self._over.set()
        with self._lock:
            processes = list(self._processes.values())
        for process in processes:
            if process.running is not None:
                process.running.kill()
            process.announced.set()
        # Wakes the reader of messages, whatever it waits for.
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return

    def _put(self, item: gateway.ExecMessage | Exception | None) -> None:
        while not self._over.is_set():
            try:
                self._queue.put(item, timeout=0.5)
            except queue.Full:
                continue
            return
        raise _Over

    def _one_less(self) -> None:
        with self._lock:
            self._waiting -= 1
            last = self._waiting == 0
        if last and not self._over.is_set():
            self._queue.put(None)

    def _handle(self, message: gateway.ExecMessage) -> None:
        id = message.ProcessID
        if not id:
            raise StatusError(errors.INVALID_ARGUMENT, "ProcessID required")
        kind = message.WhichOneof("Input")
        process = self._processes.get(id)
        if kind == "Init":
            if process is not None:
                raise StatusError(errors.ALREADY_EXISTS, f"Process {id} already exists")
            self._start(id, message.Init)
            return
        if kind not in ("File", "Resize", "Signal"):
            raise StatusError(errors.INVALID_ARGUMENT, f"unexpected message for process {id!r}")
        if process is None or process.running is None:
            raise StatusError(errors.NOT_FOUND, f"IO for process {id!r} not found")
        if kind == "Resize":
            process.running.resize(message.Resize.Rows, message.Resize.Cols)
        elif kind == "Signal":
            process.running.signal(signal_number(message.Signal.Name))
        else:
            self._input(process, message.File)

    def _input(self, process: _Process, file: gateway.FdMessage) -> None:
        if file.Fd != _STDIN or _STDIN not in process.fds:
            raise StatusError(errors.OUT_OF_RANGE, f"fd {file.Fd} unavailable to write")
        assert process.running is not None
        try:
            if file.Data:
                process.running.write(file.Data)
            if file.EOF:
                process.running.close_stdin()
        except OSError:
            # The process has ended or closed its input; how it ended is told separately.
            return

    def _start(self, id: str, init: gateway.InitMessage) -> None:
        process = _Process(id, frozenset(init.Fds))

        def output(stream: int, data: bytes) -> None:
            process.announced.wait()
            if stream in process.fds:
                self._put(gateway.ExecMessage(ProcessID=id, File=gateway.FdMessage(Fd=stream, Data=data)))

        running = self._containers.start(init, _quiet(output))
        process.running = running
        with self._lock:
            self._processes[id] = process
            self._waiting += 1
        try:
            self._put(gateway.ExecMessage(ProcessID=id, Started=gateway.StartedMessage()))
        finally:
            process.announced.set()
            threading.Thread(target=self._wait, args=(process, running), name="exec-wait", daemon=True).start()

    def _wait(self, process: _Process, running: "Running") -> None:
        try:
            try:
                code = running.wait()
                error = _exit_status(code) if code else None
            except Exception as failure:
                code, error = UNKNOWN_EXIT, to_status(failure)
            for fd in sorted(process.fds - {_STDIN}):
                self._put(gateway.ExecMessage(ProcessID=process.id, File=gateway.FdMessage(Fd=fd, EOF=True)))
            ended = gateway.ExitMessage(Code=code)
            if error is not None:
                ended.Error.CopyFrom(error)
            self._put(gateway.ExecMessage(ProcessID=process.id, Exit=ended))
            self._put(gateway.ExecMessage(ProcessID=process.id, Done=gateway.DoneMessage()))
        except _Over:
            return
        finally:
            self._one_less()


def serve(containers: Starts, requests: Iterator[gateway.ExecMessage], call: Call) -> Iterator[gateway.ExecMessage]:
    """One call. Raises StatusError for messages out of turn; processes do not outlive the call."""
    processes = _Processes(containers)
    if not call.on_end(processes.end):
        return
    threading.Thread(target=processes.read, args=(requests,), name="exec-requests", daemon=True).start()
    try:
        yield from processes.messages()
    finally:
        processes.end()


def signal_number(name: str) -> int:
    """A signal's number by its name, with or without `SIG`. Raises StatusError."""
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    try:
        return int(signal.Signals[full])
    except KeyError:
        raise StatusError(errors.INVALID_ARGUMENT, f"Unknown signal {name}") from None


def _exit_status(code: int) -> rpc_status_pb2.Status:
    return to_status(SolveError(f"exit code: {code}", exit_code=code))


def _quiet(output: Callable[[int, bytes], None]) -> Callable[[int, bytes], None]:
    """Output that nobody takes any more is dropped, so that the process can end."""

    def write(stream: int, data: bytes) -> None:
        try:
            output(stream, data)
        except _Over:
            return

    return write
