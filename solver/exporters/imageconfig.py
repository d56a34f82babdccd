"""The image config as it is stored: layers and history made to fit each other, times filled in and bounded.

Source: what BuildKit's image writer does with a frontend's config, byte for byte, so that equal images have equal
digests.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from ...oci.config import ConfigError, decode_config
from ...oci.descriptor import encode_json
from ...oci.platform import Platform, host

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\s]+|[\[\]{},:]|[^\s\[\]{},:"]+')
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HISTORY = {"created_by": "created_by", "author": "author", "comment": "comment"}


@dataclass(frozen=True, slots=True)
class Time:
    """A point in time with nanoseconds, and the zone that it was written in."""

    nanoseconds: int
    offset: int = 0
    """Minutes east of UTC."""

    @staticmethod
    def parse(text: str) -> "Time":
        """Read RFC 3339. Raises ConfigError."""
        match = _TIME.match(text)
        if match is None:
            raise ConfigError(f"image config: {text!r} is no time")
        *numbers, fraction, zone = match.groups()
        offset = 0
        if zone != "Z":
            offset = (int(zone[1:3]) * 60 + int(zone[4:6])) * (-1 if zone[0] == "-" else 1)
        try:
            whole = datetime(*map(int, numbers), tzinfo=timezone(timedelta(minutes=offset)))  # type: ignore[misc,arg-type]
        except ValueError:
            raise ConfigError(f"image config: {text!r} is no time") from None
        seconds = (whole - _EPOCH) // timedelta(seconds=1)
        return Time(seconds * 10**9 + int((fraction or "0")[:9].ljust(9, "0")), offset)

    def __str__(self) -> str:
        """The form in which Go writes it."""
        seconds, rest = divmod(self.nanoseconds, 10**9)
        moment = _EPOCH.astimezone(timezone(timedelta(minutes=self.offset))) + timedelta(seconds=seconds)
        sign, minutes = "-" if self.offset < 0 else "+", abs(self.offset)
        zone = f"{sign}{minutes // 60:02}:{minutes % 60:02}" if self.offset else "Z"
        fraction = f".{rest:09}".rstrip("0") if rest else ""
        return f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}{fraction}{zone}"


@dataclass(slots=True)
class _Entry:
    created: Time | None
    texts: dict[str, str]
    empty: bool

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if self.created is not None:
            out["created"] = str(self.created)
        out |= {key: value for key, value in self.texts.items() if value}
        return out | ({"empty_layer": True} if self.empty else {})


def default_config() -> bytes:
    """The config of a result that came without one."""
    platform = host()
    value: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        value["variant"] = platform.variant
    value["config"] = {"Env": [DEFAULT_PATH], "WorkingDir": "/"}
    value["rootfs"] = {"type": "layers", "diff_ids": None}
    return encode_json(value, None)


def platform_of(config: Mapping[str, Any]) -> Platform:
    """The platform that a config is for. Raises ConfigError where it names none."""
    for key in ("os", "architecture"):
        if not config.get(key):
            raise ConfigError(f"invalid image config for export: missing {key}")
    return Platform(
        config["os"],
        config["architecture"],
        config.get("variant") or "",
        config.get("os.version") or "",
        tuple(config.get("os.features") or ()),
    )


def patch(
    data: bytes,
    diff_ids: Sequence[str],
    created: Sequence[int],
    describe: Callable[[], Sequence[str]],
    *,
    epoch: int | None = None,
    base: bytes | None = None,
    inline_cache: bytes | None = None,
) -> bytes:
    """The config to store.

    Args:
        data: the frontend's.
        diff_ids: the layers, lowest first.
        created: when each layer was made, in nanoseconds.
        describe: says what made each layer; asked only where the config's history leaves some out.
        epoch: no time is later than this, in seconds, except for what comes from the base image.
        base: the config of the image that this one is built on.
        inline_cache: a cache record to put into the config.

    Raises:
        ConfigError: where the config is broken.
    """
    config = decode_config(data)
    platform_of(config)
    members = _members(data)
    members["rootfs"] = encode_json({"type": "layers", "diff_ids": list(diff_ids) or None}, None)
    history = _normalized(_history(config), created, describe)
    limit = None if epoch is None else Time(epoch * 10**9)
    if limit is not None and history:
        _bound(history, limit, _history(decode_config(base)) if base else [])
    no_history = not history and config.get("history") is None
    members["history"] = b"null" if no_history else encode_json([entry.to_json() for entry in history], None)
    given = config.get("created")
    if "created" in members:
        if limit is not None and given is not None and Time.parse(given).nanoseconds > limit.nanoseconds:
            members["created"] = encode_json(str(limit), None)
    else:
        times = [entry.created for entry in history if entry.created is not None]
        members["created"] = encode_json(str(times[-1]) if times else None, None)
    if inline_cache is not None:
        import base64

        members["moby.buildkit.cache.v0"] = encode_json(base64.b64encode(inline_cache).decode(), None)
    return b"{" + b",".join(encode_json(key, None) + b":" + members[key] for key in sorted(members)) + b"}"


def _history(config: Mapping[str, Any]) -> list[_Entry]:
    out = []
    for value in config.get("history") or ():
        if not isinstance(value, dict):
            raise ConfigError("image config: history: expected a list of objects")
        texts = {key: value.get(key) or "" for key in _HISTORY}
        created = value.get("created")
        if not all(isinstance(text, str) for text in texts.values()) or not isinstance(created, str | None):
            raise ConfigError("image config: history: expected texts")
        out.append(_Entry(Time.parse(created) if created else None, texts, value.get("empty_layer") is True))
    return out


def _normalized(
    history: list[_Entry], created_at: Sequence[int], describe: Callable[[], Sequence[str]]
) -> list[_Entry]:
    """As many entries that are not empty as there are layers, each with a time."""
    seen = 0
    for entry in history:
        if seen >= len(created_at):
            entry.empty = True
        seen += not entry.empty
    if seen < len(created_at):
        for moment, text in zip(created_at[seen:], describe()[seen:], strict=True):
            texts = {"created_by": text, "author": "", "comment": "buildkit.exporter.image.v0"}
            history.append(_Entry(Time(moment), texts, False))
    place = 0
    for entry in history:
        if not entry.empty:
            if entry.created is None:
                entry.created = Time(created_at[place])
            place += 1
    # Commands that made no layer get the time of the first new layer, or else that of the one before.
    created, missing = None, False
    for entry in history:
        if entry.created is not None:
            created = entry.created
            if missing:
                break
        else:
            missing = True
    missing = False
    for entry in history:
        if entry.created is None:
            missing, entry.created = True, created
        elif missing:
            created = entry.created
    return history


def _bound(history: list[_Entry], limit: Time, base: list[_Entry]) -> None:
    """Make no entry later than a time, but those that the base image had."""
    inherited = True
    for place, entry in enumerate(history):
        inherited = inherited and place < len(base) and entry == base[place]
        if not inherited and (entry.created is None or entry.created.nanoseconds > limit.nanoseconds):
            entry.created = limit


def _members(data: bytes) -> dict[str, bytes]:
    """The members of a JSON object with their values as they are written, but for space between tokens."""
    out: dict[str, bytes] = {}
    depth, key, value = 0, None, bytearray()
    for match in _TOKEN.finditer(data):
        token = match[0]
        if token.isspace():
            continue
        if token in (b"}", b"]"):
            depth -= 1
        if depth == 0 and token in (b"{", b"}"):
            if key is not None:
                out[key] = bytes(value)
        elif depth == 1 and token == b"," and key is not None:
            out[key], key = bytes(value), None
            value = bytearray()
        elif depth == 1 and key is None:
            key = str(json.loads(token))
        elif not (depth == 1 and token == b":" and not value):
            value += _escaped(token)
        if token in (b"{", b"["):
            depth += 1
    return out


def _escaped(token: bytes) -> bytes:
    """A token with the characters escaped that Go's encoder escapes."""
    for char, escape in (
        (b"<", b"\\u003c"),
        (b">", b"\\u003e"),
        (b"&", b"\\u0026"),
        ("\u2028".encode(), b"\\u2028"),
        ("\u2029".encode(), b"\\u2029"),
    ):
        token = token.replace(char, escape)
    return token
