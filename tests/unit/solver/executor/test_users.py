"""USER against a root file system's own account files."""

import os
from pathlib import Path

import pytest

from brickyard.solver.executor.base import ExecError
from brickyard.solver.executor.users import User, find_user

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# a comment
broken
bob:x:1000:1001:Bob:/home/bob:/bin/sh
twin:x:1000:7::/twin:
 spaced :x: 5 : 6 :: /s :
123:x:44:45::/numeric:
"""
GROUP = """\
root:x:0:
wheel:x:10:root,bob
audio:x:29:bob,eve
bob:x:1001:
1001:x:9:
"""


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(0, 0, (0, 10), "/root")),
        ("root", User(0, 0, (0, 10), "/root")),
        ("0", User(0, 0, (0, 10), "/root")),
        ("bob", User(1000, 1001, (1001, 10, 29), "/home/bob")),
        ("1000", User(1000, 1001, (1001, 10, 29), "/home/bob")),
        ("bob:", User(1000, 1001, (1001, 10, 29), "/home/bob")),
        ("bob:audio", User(1000, 29, (29,), "/home/bob")),
        ("bob:5", User(1000, 5, (5,), "/home/bob")),
        ("bob:1001", User(1000, 1001, (1001,), "/home/bob")),
        ("1000:1000", User(1000, 1000, (1000,), "/home/bob")),
        ("root:root", User(0, 0, (0,), "/root")),
        ("0:audio", User(0, 29, (29,), "/root")),
        ("4321", User(4321, 0, (0,), "/")),
        ("4321:audio", User(4321, 29, (29,), "/")),
        (":audio", User(0, 29, (29,), "/root")),
        ("spaced", User(5, 6, (6,), "/s")),
        ("123", User(123, 0, (0,), "/")),
    ],
)
def test_words(rootfs: Path, text: str, user: User) -> None:
    assert find_user(rootfs, text) == user


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eve", "unable to find user eve: no matching entries in passwd file"),
        ("bob:eve", "unable to find group eve: no matching entries in group file"),
        ("2147483648", "uids and gids must be in range 0-2147483647: 2147483648"),
        ("0:4294967296", "uids and gids must be in range 0-2147483647: 4294967296"),
        ("-1", "unable to find user -1"),
        ("٣", "unable to find user"),
    ],
)
def test_words_that_are_refused(rootfs: Path, text: str, message: str) -> None:
    with pytest.raises(ExecError, match=message):
        find_user(rootfs, text)


def test_without_account_files(tmp_path: Path) -> None:
    assert find_user(tmp_path, "") == User()
    assert find_user(tmp_path, "5:6") == User(5, 6, (6,), "/")
    with pytest.raises(ExecError, match="unable to find user bob"):
        find_user(tmp_path, "bob")


def test_links_stay_in_the_root_file_system(tmp_path: Path) -> None:
    outside, rootfs = tmp_path / "outside", tmp_path / "rootfs"
    outside.mkdir()
    (outside / "passwd").write_text("eve:x:666:666::/:\n")
    (rootfs / "etc").mkdir(parents=True)
    (rootfs / "etc/passwd").symlink_to(outside / "passwd")
    with pytest.raises(ExecError):
        find_user(rootfs, "eve")
    (rootfs / "etc/passwd").unlink()
    (rootfs / "etc/passwd").symlink_to("../../outside/passwd")
    with pytest.raises(ExecError):
        find_user(rootfs, "eve")
    (rootfs / "etc/passwd").unlink()
    (rootfs / "etc/passwd").symlink_to("../usr/accounts")
    (rootfs / "usr").mkdir()
    (rootfs / "usr/accounts").symlink_to("/usr/real")
    (rootfs / "usr/real").write_text(PASSWD)
    assert find_user(rootfs, "bob").uid == 1000


def test_special_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    (tmp_path / "etc/group").mkdir()
    assert find_user(tmp_path, "") == User()
    (tmp_path / "etc/passwd").unlink()
    (tmp_path / "etc/passwd").symlink_to("passwd")
    assert find_user(tmp_path, "") == User()


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    with open(tmp_path / "etc/passwd", "wb") as file:
        file.truncate((10 << 20) + 1)
    with pytest.raises(ExecError, match="/etc/passwd of the root file system is larger than"):
        find_user(tmp_path, "root")
