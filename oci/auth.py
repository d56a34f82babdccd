"""How a registry wants to be asked: challenges and bearer tokens (RFC 7235; distribution's token and oauth2 specs)."""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

TOKEN_USERS = ("", "<token>")
"""User names that mark a secret as an identity token."""

_CHALLENGE = re.compile(r"\s*,?\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s+(?=[A-Za-z0-9!#$%&'*+.^_`|~-]+\s*=)|\s*(?=,|$))")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_ESCAPE = re.compile(r"\\(.)")
_MIN_LIFE = 60
_MARGIN = 10


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way of authenticating that a server offers, its scheme in lower case."""

    scheme: str
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token; `repr` does not show it."""

    text: str = field(repr=False)
    expires: float

    @staticmethod
    def fresh(text: str, seconds: object) -> "Token":
        """A token just issued, for so many seconds; the specification's 60 where that is not a number."""
        life = seconds if isinstance(seconds, int | float) and seconds > 0 else _MIN_LIFE
        return Token(text, time.monotonic() + max(life - _MARGIN, life / 2))

    def good(self) -> bool:
        """Whether it has not expired."""
        return time.monotonic() < self.expires


def challenges(header: str) -> list[Challenge]:
    """Read a WWW-Authenticate header; what is not understood ends the list."""
    out: list[Challenge] = []
    at = 0
    while match := _CHALLENGE.match(header, at):
        at = match.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, at):
            value = parameter[3] if parameter[2] is None else _ESCAPE.sub(r"\1", parameter[2])
            parameters[parameter[1].lower()] = value
            at = parameter.end()
        out.append(Challenge(match[1].lower(), parameters))
        if at >= len(header):
            break
    return out


def merge_scopes(*scopes: str) -> tuple[str, ...]:
    """Scopes with the actions of each resource joined, sorted: `repository:a:pull` and `repository:a:push` are one."""
    actions: dict[str, set[str]] = {}
    for scope in " ".join(scopes).split():
        resource, _, names = scope.rpartition(":")
        actions.setdefault(resource, set()).update(names.split(","))
    return tuple(f"{resource}:{','.join(sorted(names))}" for resource, names in sorted(actions.items()))


class TokenCache:
    """The tokens of each server by what they allow; threads that want the same one wait for one request."""

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.Lock()
        self._tokens: dict[tuple[str, tuple[str, ...]], Token] = {}
        self._fetching: dict[tuple[str, tuple[str, ...]], threading.Lock] = {}

    def get(self, key: tuple[str, tuple[str, ...]], fetch: Callable[[], Token], refused: str = "") -> str:
        """The token of a key, fetched where there is none, it has expired, or it is the one a server refused."""
        with self._lock:
            lock = self._fetching.setdefault(key, threading.Lock())
        with lock:
            token = self._tokens.get(key)
            if token is None or not token.good() or token.text == refused:
                token = self._tokens[key] = fetch()
            return token.text
