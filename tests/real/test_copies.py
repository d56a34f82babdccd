"""File operations come out as with Docker's BuildKit: names, kinds, modes, owners, times, content, and errors."""

import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from engine import Engine

pytestmark = pytest.mark.real

CASES = [
    "COPY a /",
    "COPY a /b",
    "COPY a /x/y/",
    "COPY a /x/y/z",
    "COPY d /",
    "COPY d /e",
    "COPY d /e/",
    "COPY d/ /e",
    "COPY d a /e/",
    "COPY d/* /e/",
    "COPY d/*/g /e/",
    "COPY d/s* /e",
    "COPY [a-b] /e/",
    "COPY link dirlink /e/",
    "COPY dirlink/g /e/",
    "COPY dirlink/* /e/",
    "COPY --chmod=751 d /e",
    "COPY --chmod=640 a /p/q/r",
    "COPY --chmod=u=rwX,go=rX d /e",
    "COPY --chown=12 d /e",
    "COPY --chown=12:34 a d /p/e/",
    "COPY --exclude=*/g d /e/",
    "COPY --exclude=f d /e/",
    "COPY missing* /",
    "COPY --link d /e/",
    "COPY --link a /x/y",
    "ADD t.tar.gz /e/",
    "ADD t.tar.gz /e",
    "ADD --chown=5:6 t.tar.gz /e/",
    "ADD a t.tar.gz /e/",
    "COPY t.tar.gz /e/",
    "COPY . /all/",
    "COPY hard /h/",
    "WORKDIR /w/x/y",
    "WORKDIR w\nCOPY a .\nWORKDIR v\nCOPY d e",
    "COPY d /e\nCOPY a /e/s/g\nCOPY b /e/f",
    "COPY d /e\nCOPY d/s /e",
    "COPY d /e\nCOPY --chmod=700 d /e",
    "COPY <<one.txt <<two.txt /e/\nfirst\none.txt\nsecond\ntwo.txt",
    "COPY --chmod=600 <<f /e/g\ntext\nf",
    "ADD --chown=7 d /e",
    "COPY dirlink /e",
    "COPY dirlink /e/",
    "COPY link /e\nCOPY b /e",
]
NAMES = [
    "FROM base\nCOPY --chown=mail d /e",
    "FROM base\nCOPY --chown=mail:games d /e",
    "FROM base\nCOPY --chown=nosuch a /e",
    "FROM base\nUSER mail\nCOPY a /e\nWORKDIR /w/x",
    "FROM base\nCOPY d /etc",
    "FROM base\nCOPY d /tmp/",
    "FROM base\nCOPY a /usr/new/",
    "FROM base AS one\nCOPY d /e\nFROM base\nCOPY --from=one /e/s /etc/passwd* /t/",
    "FROM base AS one\nCOPY hard /h\nFROM scratch\nCOPY --from=one /h /g\nCOPY --from=one /h/1 /k",
]
LINKS = """
RUN --network=none mkdir -p /real/z && ln -s real /alias && ln -s /real/x /deep && ln -s ../../real/z /real/up
"""
NAMES += [
    f"FROM base{LINKS}COPY d /alias/",
    f"FROM base{LINKS}COPY d /alias",
    f"FROM base{LINKS}COPY d /deep/y/",
    f"FROM base{LINKS}COPY a /deep",
    f"FROM base{LINKS}COPY a /alias/up/q",
    f"FROM base{LINKS}ADD t.tar.gz /alias/",
    f"FROM base{LINKS}WORKDIR /alias/w\nCOPY a .",
    f"FROM base{LINKS}COPY d /x\nCOPY dirlink/g /alias/../g",
    f"FROM base AS one{LINKS}FROM scratch\nCOPY --from=one /alias /real/up /o/\nCOPY --from=one /alias/ /p",
    "FROM base\nRUN --network=none rm -r /home /etc/passwd && touch /etc/x\nCOPY d /home\nCOPY a /etc/passwd",
    "FROM base\nRUN --network=none mkfifo /f && chown 3:4 /home\nCOPY --chown=9 a /home/\nCOPY d /home",
]

ERRORS = [
    "COPY missing /",
    "COPY d/none/x /",
    "COPY dangling/x /",
    "COPY dangling /",
    "COPY a /e\nCOPY d /e",
    "COPY a /e\nCOPY d /e/",
    "COPY d /e\nCOPY <<s /e/\ntext\ns",
    "COPY a /e\nCOPY b /e/f/g/h",
    "COPY a /e\nWORKDIR /e/w/x/y",
    "COPY a /e\nCOPY b /e/f",
    "COPY a /e\nWORKDIR /e/w",
]
IGNORED = re.compile(r"(?<=ref )[^ ]+|/[^ ]*/cachemounts/buildkit[0-9]+|/[^ ]*/buildkit-mount[0-9]+")


def context(folder: Path) -> Path:
    folder.mkdir()
    for name, data in {"a": "A", "b": "B", "d/f": "F", "d/s/g": "G", "d/s/h": "H", "hard/1": "one"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(data)
    os.link(folder / "hard/1", folder / "hard/2")
    (folder / "link").symlink_to("d/f")
    (folder / "dirlink").symlink_to("d/s")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "d/s/h").chmod(0o4711)
    (folder / "d/s").chmod(0o2750)
    with tarfile.open(folder / "t.tar.gz", "w:gz") as tar:
        tar.add(folder / "d", "in/d")
        tar.add(folder / "link", "in/link")
    for root, names, files in os.walk(folder, topdown=False):
        for name in [*names, *files]:
            os.utime(Path(root, name), (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    return folder


def dockerfile(cases: list[str]) -> str:
    """One stage for each case, and one that takes what is in all of them."""
    stages, last = [], ["FROM scratch"]
    for number, case in enumerate(cases):
        head, _, tail = (case if case.startswith("FROM") else f"FROM scratch\n{case}").rpartition("FROM")
        source, _, rest = tail.strip().partition("\n")
        stages.append(f"{head}FROM {source} AS case{number}\n{rest}\n".replace("AS one", f"AS one{number}"))
        stages[-1] = stages[-1].replace("--from=one", f"--from=one{number}")
        last.append(f"COPY --from=case{number} / /{number}/")
    return "\n".join([*stages, *last]) + "\n"


def listed(path: Path, since: float) -> dict[str, tuple[object, ...]]:
    moment: object
    out: dict[str, tuple[object, ...]] = {}
    with tarfile.open(path) as tar:
        for entry in tar:
            file = tar.extractfile(entry) if entry.isreg() else None
            moment = entry.mtime if entry.mtime < since else "now"
            if re.fullmatch(r"\d+/etc/?", entry.name):
                # Docker's RUN makes files for the network there, and removes them.
                moment = "any"
            data = file.read() if file is not None and entry.size < 10_000 else entry.size
            out[entry.name.rstrip("/")] = (
                entry.type,
                oct(entry.mode),
                entry.uid,
                entry.gid,
                entry.linkname,
                moment,
                data,
            )
    return out


def ours(folder: Path, root: Path, layout: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "brickyard", "build", "--progress", "plain", *more]
    command += ["--build-context", f"base=oci-layout://{layout}", folder]
    environment = {**os.environ, "BRICKYARD_ROOT": os.fspath(root)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)


def theirs(folder: Path, engine: Engine, layout: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    base = f"base=oci-layout://{layout}:latest"
    return engine.buildx("build", "--progress", "plain", "--build-context", base, *more, folder, check=False)


@pytest.mark.parametrize("cases", [CASES, NAMES], ids=["scratch", "base"])
def test_the_same_files(cases: list[str], tmp_path: Path, base_layout: Path, docker_engine: Engine) -> None:
    folder = context(tmp_path / "context")
    (folder / "Dockerfile").write_text(dockerfile(cases))
    since = time.time() - 5
    wanted = theirs(folder, docker_engine, base_layout, "-o", f"type=tar,dest={tmp_path}/theirs.tar")
    assert wanted.returncode == 0, wanted.stderr
    found = ours(folder, tmp_path / "root", base_layout, "-o", f"type=tar,dest={tmp_path}/ours.tar")
    assert found.returncode == 0, found.stderr
    theirs_files, our_files = (listed(tmp_path / f"{name}.tar", since) for name in ("theirs", "ours"))
    different = [
        f"{name} of {cases[int(name.split('/')[0])]!r}: {theirs_files.get(name)} != {our_files.get(name)}"
        for name in sorted({*theirs_files, *our_files})
        if theirs_files.get(name) != our_files.get(name)
    ]
    assert "\n".join(different) == ""


@pytest.mark.parametrize("case", ERRORS)
def test_the_same_errors(case: str, tmp_path: Path, base_layout: Path, docker_engine: Engine) -> None:
    folder = context(tmp_path / "context")
    (folder / "Dockerfile").write_text(f"FROM base\n{case}\n")
    said = []
    for done in (
        theirs(folder, docker_engine, base_layout, "-o", "type=cacheonly"),
        ours(folder, tmp_path / "root", base_layout, "-o", "type=cacheonly"),
    ):
        assert done.returncode == 1, done.stdout + done.stderr
        last = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")][-1]
        last = re.sub(r"^ERROR: (failed to (build|solve): )*", "", last)
        said.append(IGNORED.sub("", last))
    assert said[0] == said[1]
