"""Calls that wait for the other side, made at once."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """The results in order. All calls end before this does; what the first of those that failed raised is raised."""
    if len(calls) == 1:
        return [calls[0]()]
    results: dict[int, T] = {}
    failures: dict[int, BaseException] = {}

    def run(number: int) -> None:
        try:
            results[number] = calls[number]()
        except BaseException as error:
            failures[number] = error

    threads = [threading.Thread(target=run, args=(number,), name=f"call-{number}") for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[min(failures)]
    return [results[number] for number in range(len(calls))]
