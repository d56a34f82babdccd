"""The checksum of one file: of a header in the manner of an archive's, and its content.

Source: BuildKit's cache/contenthash, whose header is that of docker's first "tarsum" without name and time.
"""

import hashlib
from typing import TYPE_CHECKING

from ...wire.fsutil.modes import CHAR_DEVICE, DEVICE, DIRECTORY, NAMED_PIPE, SYMLINK, permissions
from ...wire.pb.stat_pb2 import Stat

if TYPE_CHECKING:
    from hashlib import _Hash


_LEFT_OUT = ("security.", "system.", "trusted.overlay.", "user.overlay.")


def header(entry: Stat) -> bytes:
    """What goes before a file's content. Socket bits are ignored; a symbolic link's permissions count as they are."""
    mode = entry.mode
    link, size = b"", 0
    if mode & DIRECTORY:
        kind = b"5"
    elif mode & SYMLINK:
        kind, link = b"2", entry.linkname.encode("utf-8", "surrogateescape")
    elif mode & CHAR_DEVICE:
        kind = b"3"
    elif mode & DEVICE:
        kind = b"4"
    elif mode & NAMED_PIPE:
        kind = b"6"
    else:
        kind, size = b"0", entry.size
    text = b"namemode%duid%dgid%dsize%dtypeflag%blinkname%bunamegnamedevmajor%ddevminor%d" % (
        permissions(mode),
        entry.uid,
        entry.gid,
        size,
        kind,
        link,
        entry.devmajor,
        entry.devminor,
    )
    return text + _xattrs(entry) if entry.xattrs else text


def _xattrs(entry: Stat) -> bytes:
    out = []
    for name in sorted(entry.xattrs):
        if name == "security.capability" or not name.startswith(_LEFT_OUT):
            out.append(name.encode() + entry.xattrs[name])
    return b"".join(out)


def start(entry: Stat) -> "_Hash":
    """A SHA-256 to which only the content, of a regular file, has to be added."""
    return hashlib.sha256(header(entry))
