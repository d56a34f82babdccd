"""Answers that hold for the time of a client's session: what a tag, a branch or an address means."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from ..base import Context
from ..layers import exclusively

T = TypeVar("T")
_MOST = 4096


class Memo(Generic[T]):
    """Answers by session and question; of several threads with the same question one asks. Errors are not kept."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], T] = OrderedDict()

    def get(self, context: Context, question: str, ask: Callable[[], T]) -> T:
        """The answer. Raises Cancelled, and what `ask` raises."""
        key = (context.session.id, question)
        with exclusively(context, f"{self._name} {key[0]} {question}"):
            with self._lock:
                if key in self._known:
                    return self._known[key]
            answer = ask()
            with self._lock:
                self._known[key] = answer
                while len(self._known) > _MOST:
                    self._known.popitem(last=False)
            return answer
