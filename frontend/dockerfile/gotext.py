"""Texts in the forms that Go's formatting gives them, since the image history holds them."""

import re
from collections.abc import Iterable

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_SIMPLE = {7: "\\a", 8: "\\b", 12: "\\f", 10: "\\n", 13: "\\r", 9: "\\t", 11: "\\v", 92: "\\\\", 34: '\\"'}


def quote(text: str) -> str:
    """A string as `%q` writes it."""
    return '"' + "".join(map(_escaped, text)) + '"'


def quote_number(number: int) -> str:
    """A number as `%q` writes it: as the character that it is the code of."""
    if not 0 <= number < 0x110000 or 0xD800 <= number < 0xE000:
        number = 0xFFFD
    char = {39: "\\'", 34: '"'}.get(number)
    return "'" + (char or _escaped(chr(number))) + "'"


def _escaped(char: str) -> str:
    code = ord(char)
    if code in _SIMPLE:
        return _SIMPLE[code]
    if char == " " or char.isprintable():
        return char
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quoted_list(items: Iterable[str]) -> str:
    """A list of strings as `%q` writes it."""
    return "[" + " ".join(quote(item) for item in items) + "]"


def plain_list(items: Iterable[str]) -> str:
    """A list of strings as `%v` writes it."""
    return "[" + " ".join(items) + "]"


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration such as `1h30m` or `1.5s`. Raises ValueError."""
    sign = -1 if text.startswith("-") else 1
    body = text.lstrip("+-") if text[:1] in "+-" else text
    if body == "0":
        return 0
    total, position = 0, 0
    while position < len(body):
        match = _DURATION.match(body, position)
        if match is None or not (match[1] or match[2]):
            break
        unit = _UNITS[match[3]]
        total += int(match[1] or 0) * unit
        if match[2]:
            total += int(match[2]) * unit // 10 ** len(match[2])
        position = match.end()
    if not body or position != len(body):
        raise ValueError(f"invalid duration {text!r}: write a number with a unit, such as 30s, 1m30s or 500ms")
    return sign * total


def format_duration(nanoseconds: int) -> str:
    """A duration as Go prints it: `1h0m0s`, `1.5s`, `300ms`."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    for limit, unit, size in ((10**3, "ns", 1), (10**6, "µs", 10**3), (10**9, "ms", 10**6)):
        if rest < limit:
            return sign + _decimal(rest, size) + unit
    hours, rest = divmod(rest, 3600 * 10**9)
    minutes, rest = divmod(rest, 60 * 10**9)
    text = _decimal(rest, 10**9) + "s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else sign + text


def _decimal(value: int, size: int) -> str:
    whole, part = divmod(value, size)
    if not part:
        return str(whole)
    return f"{whole}.{str(part).zfill(len(str(size)) - 1).rstrip('0')}"
