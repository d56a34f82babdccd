"""Files that their owner may not read, without root."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from brickyard.wire.fsutil.opening import open_to_read

CODE = """
import os, stat, sys
sys.path.insert(0, sys.argv[1])
from brickyard.wire.fsutil.opening import open_to_read
from brickyard.wire.fsutil import unreadable
os.chdir(sys.argv[2])
if os.geteuid() == 0:
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    sys.executable = sys.argv[3]
with open("a", "w") as file:
    file.write("text")
os.chmod("a", 0)
if unreadable.helper._started() is None:
    sys.exit("no user namespaces")
for number in range(2):
    fd = open_to_read("a", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    assert os.read(fd, 9) == b"text" and not os.get_inheritable(fd)
    os.close(fd)
assert stat.S_IMODE(os.stat("a").st_mode) == 0
os.symlink("a", "link")
os.mkdir("folder", 0)
for name, error in (("link", OSError), ("folder", PermissionError), ("none", FileNotFoundError)):
    try:
        os.close(open_to_read(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
    except error:
        continue
    sys.exit(f"{name} was opened")
print("done")
"""


def test_without_root() -> None:
    # Python itself may stand where only root comes.
    python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(Path(__file__).parents[4]), folder, python],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    if "no user namespaces" in done.stderr:
        pytest.skip("this machine gives users no namespaces")
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_what_can_be_opened_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    fd = open_to_read(str(tmp_path / "a"), os.O_RDONLY)
    assert os.read(fd, 2) == b"x"
    os.close(fd)
    with pytest.raises(FileNotFoundError):
        open_to_read(str(tmp_path / "b"), os.O_RDONLY)
