"""Files that their owner may not read, for a process without root: an /etc/shadow of mode 0 in an image.

Root reads such files, and so would a build by root. Without root, a helper in a user namespace does, where the owner is
root: it is given the file as a descriptor that allows nothing, and gives back one to read from. The file's mode stays
what it is all the while.
"""

import os
import socket
import subprocess
import sys
import threading

_HELPER = """
import ctypes, os, socket, sys
uid, gid = os.geteuid(), os.getegid()
if ctypes.CDLL(None).unshare(0x10000000):
    sys.exit(1)
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
asked = socket.socket(fileno=int(sys.argv[1]))
asked.send(b"+")
while True:
    data, fds, *_ = socket.recv_fds(asked, 1, 1)
    if not data:
        break
    try:
        found = os.open(f"/proc/self/fd/{fds[0]}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        socket.send_fds(asked, [b"+"], [found])
        os.close(found)
    except OSError:
        asked.send(b"-")
    os.close(fds[0])
"""
_SECONDS = 10.0


class Helper:
    """The helper, started when it is first needed; it ends with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: socket.socket | None = None
        self._failed = False

    def open(self, handle: int) -> int | None:
        """A descriptor to read from; None where there is no way to one."""
        with self._lock:
            try:
                asked = self._started()
                if asked is None:
                    return None
                socket.send_fds(asked, [b"?"], [handle])
                _, found, *_ = socket.recv_fds(asked, 1, 1)
            except OSError:
                self._failed = True
                return None
        if not found:
            return None
        os.set_inheritable(found[0], False)
        return found[0]

    def _started(self) -> socket.socket | None:
        if self._asked is not None or self._failed:
            return None if self._failed else self._asked
        self._failed = True
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.settimeout(_SECONDS)
            subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _HELPER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        if ours.recv(1) != b"+":
            ours.close()
            return None
        self._asked, self._failed = ours, False
        return ours


helper = Helper()
