"""The option that a word was probably meant to be."""

from collections.abc import Iterable

_FARTHEST = 2
"""How many characters may be wrong, as in BuildKit's messages."""


def nearest(word: str, options: Iterable[str]) -> str:
    """The option that differs from a word in the fewest characters; empty where none is near, or one is the word."""
    found, best = "", _FARTHEST + 1
    for option in options:
        if option == word:
            return ""
        distance = _distance(word, option, best)
        if distance < best:
            found, best = option, distance
    return found


def _distance(first: str, second: str, limit: int) -> int:
    """How many characters have to be put in, taken out or changed; at least `limit` where it is that many or more."""
    if abs(len(first) - len(second)) >= limit:
        return limit
    row = list(range(len(second) + 1))
    for number, char in enumerate(first, 1):
        above, row = row, [number]
        for place, other in enumerate(second, 1):
            row.append(min(above[place] + 1, row[-1] + 1, above[place - 1] + (char != other)))
        if min(row) >= limit:
            return limit
    return row[-1]
