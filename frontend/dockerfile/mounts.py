"""The `--mount` flag of RUN."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from ...grammar.dockerfile.tree import Flag, Instruction
from ...llb.ops import CacheSharing
from .errors import DockerfileError, did_you_mean, fail

_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}
_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = {"shared": CacheSharing.SHARED, "private": CacheSharing.PRIVATE, "locked": CacheSharing.LOCKED}
_KEYS = (
    "type from source src target dst destination readonly ro readwrite rw required size id sharing mode uid gid env"
).split()
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s?([kmgtp])?(?:i?b)?\Z", re.IGNORECASE)


@dataclass(slots=True)
class MountSpec:
    """One mount as written; None where a key was not given."""

    type: str = "bind"
    origin: str = ""
    source: str = ""
    target: str = ""
    readonly: bool = False
    size: int = 0
    id: str = ""
    sharing: CacheSharing | None = None
    required: bool = False
    env: str | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None

    @property
    def owned(self) -> bool:
        """Whether owner or mode were given."""
        return self.uid is not None or self.gid is not None or self.mode is not None


def fields(text: str) -> list[str]:
    """The fields of one CSV line. Raises ValueError for broken quotes."""
    out, position = [], 0
    while True:
        if text.startswith('"', position):
            end, value = position + 1, ""
            while True:
                quote = text.find('"', end)
                if quote < 0:
                    raise ValueError("a quote is not closed")
                value += text[end:quote]
                if not text.startswith('"', quote + 1):
                    break
                value += '"'
                end = quote + 2
            position = quote + 1
            if position < len(text) and text[position] != ",":
                raise ValueError('after a closing quote must come a ","')
        else:
            end = text.find(",", position)
            end = len(text) if end < 0 else end
            value = text[position:end]
            if '"' in value:
                raise ValueError('a bare " in a field')
            position = end
        out.append(value)
        if position >= len(text):
            return out
        position += 1


def parse_mount(node: Instruction, flag: Flag | None, text: str, expand: Callable[[str], str] | None) -> MountSpec:
    """One mount. Without `expand` only what does not depend on variables is read: `from`.

    Raises:
        DockerfileError: for keys, values or combinations that are no mount.
    """

    def wrong(message: str, hint: str = "") -> DockerfileError:
        return fail(node, message, hint, flag)

    try:
        parts = fields(text)
    except ValueError as error:
        raise wrong(f"failed to parse the mount {text!r}: {error}") from None
    mount = MountSpec()
    readonly: bool | None = None
    for part in parts:
        key, equals, value = part.partition("=")
        key = key.lower()
        if not equals:
            if expand is None:
                continue
            if key in ("readonly", "ro"):
                readonly = True
            elif key in ("readwrite", "rw"):
                readonly = False
            elif key == "required" and mount.type in ("secret", "ssh"):
                mount.required = True
            elif key == "required":
                raise wrong(f"unexpected key {key!r} for mount type {mount.type!r}")
            else:
                raise wrong(f"invalid field {part!r}: it must be a key=value pair")
            continue
        if expand is not None:
            value = expand(value)
        elif key == "from":
            if "$" in value[:-1]:
                raise wrong(
                    f"{key!r} doesn't support variable expansion", "define a stage with FROM $VARIABLE AS name instead"
                )
        else:
            continue
        if key in ("readonly", "ro", "readwrite", "rw"):
            switched = boolean(value)
            if switched is None:
                raise wrong(f"invalid value for {key}: {value}", "write true or false")
            readonly = switched if key in ("readonly", "ro") else not switched
        else:
            _set(mount, key, value, part, wrong)
    if expand is None:
        return mount
    if mount.type not in ("secret", "ssh", "cache"):
        for key in ("mode", "uid", "gid"):
            if getattr(mount, key) is not None:
                raise wrong(f"{key} not allowed for {mount.type!r} type mounts")
    mount.readonly = mount.type not in ("cache", "tmpfs") if readonly is None else readonly
    if mount.type == "secret":
        if mount.origin:
            raise wrong("secret mount should not have a from")
        if mount.sharing is not None:
            raise wrong("secret mount should not define sharing")
        if not (mount.source or mount.target or mount.id):
            raise wrong("invalid secret mount: one of id, source, target is required")
        if mount.source and mount.id:
            raise wrong("both source and id can't be set", "remove source: it is an older name of id")
    if mount.sharing is not None and mount.type != "cache":
        raise wrong(f"invalid cache sharing set for {mount.type} mount")
    return mount


def _set(mount: MountSpec, key: str, value: str, part: str, wrong: Callable[..., DockerfileError]) -> None:
    if key == "type":
        mount.type = value.lower()
        if mount.type not in _TYPES:
            raise wrong(
                f"unsupported mount type {value!r}", did_you_mean(value, _TYPES) or f"known: {', '.join(_TYPES)}"
            )
    elif key == "from":
        mount.origin = value
    elif key in ("source", "src"):
        mount.source = value
    elif key in ("target", "dst", "destination"):
        mount.target = value
    elif key == "id":
        mount.id = value
    elif key == "env":
        mount.env = value
    elif key == "required":
        if mount.type not in ("secret", "ssh"):
            raise wrong(f"unexpected key {key!r} for mount type {mount.type!r}")
        required = boolean(value)
        if required is None:
            raise wrong(f"invalid value for {key}: {value}", "write true or false")
        mount.required = required
    elif key == "size":
        if mount.type != "tmpfs":
            raise wrong(f"unexpected key {key!r} for mount type {mount.type!r}")
        size = _size(value)
        if size is None:
            raise wrong(f"invalid value for {key}: {value}", "write a number of bytes, or one such as 64m")
        mount.size = size
    elif key == "sharing":
        if value.lower() not in _SHARING:
            hint = did_you_mean(value, _SHARING) or "shared, private and locked are known"
            raise wrong(f"unsupported sharing value {value!r}", hint)
        mount.sharing = _SHARING[value.lower()]
    elif key in ("mode", "uid", "gid"):
        base, digits = (8, "01234567") if key == "mode" else (10, "0123456789")
        if not value or any(char not in digits for char in value) or int(value, base) >= 2**32:
            raise wrong(f"invalid value {value} for {key}")
        setattr(mount, key, int(value, base))
    else:
        raise wrong(f"unexpected key {key!r} in {part!r}", did_you_mean(key, _KEYS))


def boolean(text: str) -> bool | None:
    """A truth value as Go's strconv reads it; None for another text."""
    return True if text in _TRUE else False if text in _FALSE else None


def _size(text: str) -> int | None:
    match = _SIZE.match(text)
    if match is None:
        return None
    return int(float(match[1]) * 1024 ** (" kmgtp".index((match[2] or " ").lower())))
