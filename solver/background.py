"""Work that may wait for the network, done so that a stopped build does not wait with it."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from .base import Context

T = TypeVar("T")
_POLL = 0.05


class Task(Generic[T]):
    """Work in a thread of its own, which ends with the process at the latest."""

    def __init__(self, work: Callable[[], T], slots: threading.Semaphore | None = None) -> None:
        """Begin at once, or when one of the slots is free."""
        self._future: Future[T] = Future()
        self._work = work
        self._slots = slots
        threading.Thread(target=self._run, daemon=True, name="background").start()

    def _run(self) -> None:
        if self._slots is not None:
            self._slots.acquire()
        try:
            if self._future.set_running_or_notify_cancel():
                self._future.set_result(self._work())
        except BaseException as error:
            self._future.set_exception(error)
        finally:
            if self._slots is not None:
                self._slots.release()

    def cancel(self) -> None:
        """Do not begin any more."""
        self._future.cancel()

    def failed(self) -> bool:
        """Whether it has ended with an error."""
        return self._future.done() and not self._future.cancelled() and self._future.exception() is not None

    def result(self, context: Context, others: Sequence["Task[T]"] = ()) -> T:
        """What came of it. Raises what it, or one of the others, failed with, and Cancelled."""
        wait = _POLL
        while True:
            context.check()
            for other in others:
                if other.failed():
                    other._future.result()
            try:
                return self._future.result(timeout=wait)
            except TimeoutError:
                if self._future.done():
                    raise


def interruptible(context: Context, work: Callable[[], T]) -> T:
    """What came of work that may wait long. Raises Cancelled at once where the build is stopped."""
    return Task(work).result(context)


def together(context: Context, works: Sequence[Callable[[], T]], most: int) -> list[T]:
    """The results of works of which so many run at a time, in order. Raises the first error, and Cancelled."""
    slots = threading.Semaphore(most)
    tasks = [Task(work, slots) for work in works]
    try:
        return [task.result(context, tasks) for task in tasks]
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
