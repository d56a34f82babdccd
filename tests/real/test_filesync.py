"""File transfers with the real thing: buildx's own fsutil at one end, ours at the other, and ours at both."""

import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Builder, connect, running_daemon
from engine import Cli

from brickyard.solver.localsync.index import Indexes
from brickyard.wire.pb.stat_pb2 import Stat

pytestmark = [pytest.mark.real]

NAMES = ("a", "b", "ab", "a.b", "c", "foo", ".x")
TARGETS = ("a", "../a", "/b", "../../../c", "a/b", "foo/./../a", ".x", "l1", "l2", "/a/b", ".")
PARTS = ("a", "b", "ab", "a*", "*", "**", "?", "[a-b]", "foo", "*.b", ".*", "[^a]")
PATHS = ("a", "b", "ab", "foo", "l1", "l2", "*", "l*", "a*", "?", ".", "..", "[ab]", "c")


@pytest.fixture
def builder(buildx: Cli, tmp_path: Path) -> Iterator[Builder]:
    with running_daemon(tmp_path / "daemon") as daemon:
        yield connect(buildx, daemon)


def made_up(folder: Path, chance: random.Random) -> None:
    """Folders, files, symbolic and hard links, all of the names that the patterns are about."""
    folder.mkdir()
    for _ in range(chance.randint(1, 16)):
        *above, name = [chance.choice(NAMES) for _ in range(chance.randint(1, 4))]
        place = folder
        for part in above:
            place /= part
            if place.is_symlink() or place.is_file():
                break
            place.mkdir(exist_ok=True)
        else:
            _make(folder, place / chance.choice((name, name, "l1", "l2")), chance)


def _make(folder: Path, place: Path, chance: random.Random) -> None:
    if os.path.lexists(place):
        return
    kind = chance.random()
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    if kind < 0.1:
        place.mkdir()
    elif kind < 0.3:
        place.symlink_to(chance.choice(TARGETS))
    elif kind < 0.4 and files:
        place.hardlink_to(chance.choice(files))
    else:
        place.write_text(str(place.relative_to(folder)))


def pattern(chance: random.Random) -> str:
    parts = [chance.choice(PARTS) for _ in range(chance.randint(1, 3))]
    start, end = chance.choice(("", "", "!", "**/", "!**/", "/", "./")), chance.choice(("", "", "/*", "/**", "/"))
    return start + "/".join(parts) + end


def look(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Everything below a folder: mode, time but for folders, and content or target."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        text = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
        when = 0 if path.is_dir() and not path.is_symlink() else status.st_mtime_ns
        found[str(path.relative_to(folder))] = (status.st_mode, when, text)
    return found


def ours(root: Path, *args: str | Path) -> "subprocess.CompletedProcess[str]":
    """A build in one process, where our own walk is at the other end."""
    command = [sys.executable, "-m", "brickyard", "build", "--root", root, "--progress", "plain", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("seed", [1, 2])
def test_ignore_files_leave_out_the_same(builder: Builder, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    steps, flags = ["FROM scratch"], []
    for number in range(40):
        context = tmp_path / f"c{number}"
        made_up(context, chance)
        (context / ".dockerignore").write_text("\n".join(pattern(chance) for _ in range(chance.randint(0, 5))))
        steps.append(f"COPY --from=c{number} / /c{number}/")
        flags += ["--build-context", f"c{number}={context}"]
    (tmp_path / "main").mkdir()
    (tmp_path / "main/Dockerfile").write_text("\n".join(steps))
    builder.build(*flags, "-o", tmp_path / "theirs", tmp_path / "main")
    done = ours(tmp_path / "root", *flags, "-o", tmp_path / "ours", tmp_path / "main")
    assert done.returncode == 0, done.stderr
    expected = look(tmp_path / "theirs")
    assert len(expected) > 200
    assert look(tmp_path / "ours") == expected


def transferred(root: Path) -> list[tuple[str, int, str, int]]:
    """What was transferred of the context last."""
    indexes = Indexes(root)
    kept = max((entry for entry in indexes.usage()), key=lambda entry: entry.written)
    index = indexes.load(kept.key)
    assert index is not None
    assert index.source == "context"
    entries = map(Stat.FromString, index.files)
    return [(entry.path, entry.mode, entry.linkname, entry.modTime) for entry in entries]


@pytest.mark.parametrize("seed", range(8))
def test_links_are_followed_the_same_way(builder: Builder, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    made_up(tmp_path / "context", chance)
    sources = [
        chance.choice(("", "/")) + "/".join(chance.choice(PATHS) for _ in range(chance.randint(1, 3)))
        for _ in range(chance.randint(1, 3))
    ]
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nCOPY {' '.join(sources)} /x/\n")
    arguments = ("-f", tmp_path / "Dockerfile", tmp_path / "context")
    theirs = builder.build(*arguments, check=False)
    mine = ours(tmp_path / "root", *arguments)
    assert mine.returncode == theirs.returncode, mine.stderr + theirs.stderr
    assert transferred(tmp_path / "root") == transferred(builder.daemon.folder / "root")


def test_files_of_every_kind_go_there_and_back(builder: Builder, tmp_path: Path) -> None:
    context = tmp_path / "context"
    (context / "d/e").mkdir(parents=True)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY d /d\n")
    (context / "d/big").write_bytes(os.urandom(3_000_001))
    (context / "d/empty").touch()
    (context / "d/set").write_text("x")
    (context / "d/set").chmod(0o6711)
    (context / "d/dangling").symlink_to("no where")
    (context / "d/second").hardlink_to(context / "d/set")
    (context / "d/é ü").write_text("not ASCII")
    (context / "d/e").chmod(0o1770)
    os.mkfifo(context / "d/pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(context / "d/socket"))
    os.setxattr(context / "d/set", "user.note", b"kept")
    builder.build("-o", tmp_path / "out", context)
    out = tmp_path / "out/d"
    for name in ("empty", "set", "dangling", "second", "é ü", "pipe"):
        before, after = (context / "d" / name).lstat(), (out / name).lstat()
        assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns), name
    assert (out / "big").read_bytes() == (context / "d/big").read_bytes()
    assert os.readlink(out / "dangling") == "no where"
    assert (out / "second").stat().st_ino == (out / "set").stat().st_ino
    assert os.getxattr(out / "set", "user.note") == b"kept"
    assert (out / "e").stat().st_mode & 0o7777 == 0o1770
    assert (out / "socket").stat().st_size == 0


def test_only_what_changed_is_sent_again(builder: Builder, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    for number in range(4):
        (context / f"f{number}").write_bytes(os.urandom(100_000))
        os.utime(context / f"f{number}", (1_600_000_000, 1_600_000_000))

    def sent() -> float:
        said = builder.build("--progress", "plain", context).stderr
        number, unit = re.findall(r"transferring context: ([\d.]+)([kM]?)B", said)[-1]
        return float(number) * {"": 1, "k": 1000, "M": 1_000_000}[unit]

    assert sent() > 400_000
    assert sent() < 5_000
    (context / "f2").write_bytes(os.urandom(100_000))
    assert 100_000 < sent() < 110_000


def test_a_name_that_is_not_utf8_is_an_error_that_says_so(builder: Builder, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    with open(os.fsencode(context) + b"/\xff", "wb"):
        pass
    for done in (builder.build(context, check=False), ours(tmp_path / "root", context)):
        assert done.returncode == 1
        assert "UTF-8" in done.stderr
        assert "Traceback" not in done.stderr
