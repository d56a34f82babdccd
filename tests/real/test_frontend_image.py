"""Our frontend image on a real Docker Engine, next to the frontend that is built into it.

Every scenario is built with both, one after the other, and every other one in the other order. The images must have the
same digest, the vertices the same digests and names, and whichever comes second finds every step in the cache.
"""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from engine import Engine
from frontend_image import ROOT
from scenarios import CALLS, FAILURES, SAME, Failure, Scenario, same
from services import free_port, program, wait_for_port

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("engine")]

CONTEXT = re.compile(r"^\[(internal\] load build context|context )")
STEP = re.compile(r"^\[[^]]*\d+/\d+\] (?!FROM)")


@dataclass(frozen=True)
class World:
    """What scenarios need around them."""

    engine: Engine
    frontend: str
    """The reference of our image."""
    places: dict[str, str]
    """What stands for `@NAME@`."""

    def filled(self, text: str, context: Path) -> str:
        for name, value in {**self.places, "CONTEXT": str(context)}.items():
            text = text.replace(f"@{name}@", value)
        return text


@dataclass(frozen=True)
class Built:
    """What came of a build: exit code, image digest, the vertices' digests with their names, and the cached ones."""

    code: int
    digest: str
    vertices: dict[str, str]
    cached: frozenset[str]
    out: str
    err: str

    def steps(self) -> dict[str, str]:
        """The vertices of the Dockerfile's own steps."""
        return {digest: name for digest, name in self.vertices.items() if STEP.match(name)}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: pytest shows what tests say."""


@pytest.fixture(scope="session")
def http_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A file server: its address and its folder."""
    folder = tmp_path_factory.mktemp("http")
    (folder / "file.txt").write_text("from the server\n")
    with tarfile.open(folder / "archive.tar.gz", "w:gz") as archive:
        for name in ("in/one.txt", "in/two.txt"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"abc\n"))
    with tarfile.open(folder / "context.tar.gz", "w:gz") as archive:
        for name, text in {"Dockerfile": "FROM scratch\nCOPY a.txt /\n", "a.txt": "a\n"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    for path in folder.iterdir():
        os.utime(path, (1_600_000_000, 1_600_000_000))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def git_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a repository with a Dockerfile, a folder `sub`, the branch `main` and the tag `v1`."""
    folder = tmp_path_factory.mktemp("git")
    work = folder / "repo"
    (work / "sub").mkdir(parents=True)
    (work / "Dockerfile").write_text("FROM scratch\nCOPY sub/file.txt /\n")
    (work / "sub/file.txt").write_text("from git\n")
    (work / "sub/Dockerfile").write_text("FROM scratch\nCOPY file.txt /sub/\n")
    who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in (
        ("NAME", "Mason"), ("EMAIL", "mason@example.com"), ("DATE", "2020-01-01T00:00:00Z"))}  # fmt: skip
    for command in ("init -q -b main", "add .", "commit -q -m first", "tag v1"):
        subprocess.run([program("git"), *command.split()], cwd=work, env={**os.environ, **who}, check=True)
    port = free_port()
    server = subprocess.Popen(
        [
            "git",
            "daemon",
            f"--base-path={folder}",
            "--export-all",
            "--listen=127.0.0.1",
            f"--port={port}",
            "--reuseaddr",
        ],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for_port(port, server)
        yield f"git://127.0.0.1:{port}/repo/.git"
    finally:
        os.killpg(server.pid, 15)
        server.wait(10)


@pytest.fixture(scope="session")
def ssh_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of an agent without keys."""
    socket = tmp_path_factory.mktemp("agent") / "socket"
    agent = subprocess.Popen([program("ssh-agent"), "-D", "-a", socket], stdout=subprocess.PIPE)
    assert agent.stdout is not None
    agent.stdout.readline()
    yield str(socket)
    agent.terminate()
    agent.wait(10)


@pytest.fixture(scope="session")
def world(
    docker_engine: Engine,
    frontend_image: str,
    base_image: str,
    base_layout: Path,
    http_server: tuple[str, Path],
    git_server: str,
    ssh_agent: str,
) -> World:
    address, folder = http_server
    checksum = "sha256:" + hashlib.sha256((folder / "file.txt").read_bytes()).hexdigest()
    places = {
        "BASE": base_image, "LAYOUT": str(base_layout), "HTTP": address, "GIT": git_server, "SHA": checksum,
        "AGENT": ssh_agent, "FRONTEND": frontend_image,
    }  # fmt: skip
    return World(docker_engine, frontend_image, places)


Build = Callable[..., Built]


@pytest.fixture
def build(world: World, tmp_path: Path) -> Build:
    """Build a scenario with our frontend or with the Engine's own."""

    def call(scenario: Scenario, *, ours: bool, output: bool = True) -> Built:
        context = tmp_path / "context"
        text = world.filled(scenario.dockerfile, context)
        if not context.exists():
            for name, content in {"Dockerfile": text, **scenario.files}.items():
                (context / name).parent.mkdir(parents=True, exist_ok=True)
                (context / name).write_bytes(content.encode())
                os.utime(context / name, (1_700_000_000, 1_700_000_000))
        flags = [world.filled(flag, context) for flag in scenario.flags]
        if "-f" in flags:
            flags[flags.index("-f") + 1] = str(context / flags[flags.index("-f") + 1])
        if "--network" not in flags and output:
            flags += ["--network", "none"]
        if ours:
            flags += ["--build-arg", f"BUILDKIT_SYNTAX={world.frontend}"]
        metadata = tmp_path / "metadata.json"
        metadata.unlink(missing_ok=True)
        if output:
            archive = tmp_path / "image.tar"
            flags += ["-o", f"type=oci,dest={archive},rewrite-timestamp=true", "--metadata-file", metadata]
            flags += ["--provenance=false", "--progress", "rawjson"]
        done = world.engine.buildx(
            "build", *flags, "-" if scenario.stdin else context,
            env={"SOURCE_DATE_EPOCH": "1700000000", "SSH_AUTH_SOCK": world.places["AGENT"], **scenario.env},
            stdin=text.encode() if scenario.stdin else None,
            check=False,
        )  # fmt: skip
        digest = json.loads(metadata.read_text())["containerimage.digest"] if metadata.exists() else ""
        return Built(done.returncode, digest, *vertices(done.stderr if output else ""), done.stdout, done.stderr)

    return call


def vertices(raw: str) -> tuple[dict[str, str], frozenset[str]]:
    """The vertices of a progress in raw JSON, and which of them came from the cache."""
    names: dict[str, str] = {}
    cached: set[str] = set()
    for line in raw.splitlines():
        if not line.startswith("{"):
            continue
        for vertex in json.loads(line).get("vertexes", []):
            names[vertex["digest"]] = vertex["name"]
            if vertex.get("cached"):
                cached.add(vertex["digest"])
    return names, frozenset(cached)


def numbered(scenarios: list[Scenario]) -> list[object]:
    """The scenarios as parameters; with every other one ours comes first."""
    return [pytest.param(scenario, number % 2 == 1, id=scenario.name) for number, scenario in enumerate(scenarios)]


@pytest.mark.parametrize(("scenario", "ours_first"), numbered(SAME))
def test_same_image_from_the_same_cache(scenario: Scenario, ours_first: bool, build: Build) -> None:
    first, second = build(scenario, ours=ours_first), build(scenario, ours=not ours_first)
    ours, theirs = (first, second) if ours_first else (second, first)
    assert theirs.code == 0, theirs.err[-3000:]
    assert ours.code == 0, ours.err[-3000:]
    assert sorted(ours.steps().values()) == sorted(theirs.steps().values())
    # What reads a context from the client has the session's name in its digest.
    if not any(CONTEXT.search(name) for name in theirs.vertices.values()):
        assert ours.steps() == theirs.steps()
    assert ours.digest == theirs.digest
    # A step that fetches is two vertices of one name: what is fetched is asked for again each time.
    steps = second.steps()
    assert {name for digest, name in steps.items() if digest in second.cached} == set(steps.values())


@pytest.mark.parametrize("scenario", CALLS, ids=[scenario.name for scenario in CALLS])
def test_calls_say_the_same(scenario: Scenario, build: Build) -> None:
    ours, theirs = build(scenario, ours=True, output=False), build(scenario, ours=False, output=False)
    assert without_definition(ours.out) == without_definition(theirs.out)
    assert ours.code == theirs.code


def without_definition(out: str) -> object:
    """What a call printed; of JSON without the graph that the Dockerfile came from, which names the session."""
    if not out.startswith("{"):
        return out
    answer = json.loads(out)
    for source in answer.get("sources", []):
        if isinstance(source, dict):
            del source["definition"]
    return answer


@pytest.mark.parametrize("failure", FAILURES, ids=[failure.scenario.name for failure in FAILURES])
def test_failures_say_what_and_where(failure: Failure, build: Build) -> None:
    theirs, ours = build(failure.scenario, ours=False), build(failure.scenario, ours=True)
    assert (ours.code, theirs.code) == (1, 1)
    assert failure.says in ours.err
    assert "Traceback" not in ours.err
    if failure.line is not None:
        assert re.search(rf"^\s*{failure.line} \| >>> ", ours.err, re.MULTILINE), ours.err[-3000:]


def test_syntax_line_asks_for_ours(build: Build, world: World) -> None:
    scenario = same("syntax", "# syntax=@FRONTEND@\nFROM scratch\nCOPY a.txt /\n")
    built = build(scenario, ours=False)
    plain = build(replace(scenario, dockerfile="FROM scratch\nCOPY a.txt /\n"), ours=False)
    assert built.code == 0, built.err[-3000:]
    assert any(world.frontend in name for name in built.vertices.values())
    assert built.digest == plain.digest


@pytest.mark.parametrize("address", ["@GIT@#main", "@GIT@#v1:sub", "@HTTP@/context.tar.gz"])
def test_remote_contexts(address: str, world: World, tmp_path: Path) -> None:
    digests = []
    for extra in ((), ("--build-arg", f"BUILDKIT_SYNTAX={world.frontend}")):
        metadata = tmp_path / "metadata.json"
        world.engine.buildx(
            "build", world.filled(address, tmp_path), *extra, "--metadata-file", metadata, "--provenance=false",
            "-o", f"type=oci,dest={tmp_path}/image.tar,rewrite-timestamp=true", env={"SOURCE_DATE_EPOCH": "1700000000"},
        )  # fmt: skip
        digests.append(json.loads(metadata.read_text())["containerimage.digest"])
    assert digests[0] == digests[1]


def test_what_the_engine_knows_from_the_labs_channel_only(build: Build) -> None:
    parents = same("parents", "FROM scratch\nCOPY --parents deep/./er/c.txt deep/d.md /p/\n")
    assert "unknown flag: --parents" in build(parents, ours=False).err
    built = build(parents, ours=True)
    assert built.code == 0, built.err[-3000:]


def test_a_file_on_a_server_as_a_named_context(build: Build) -> None:
    """It is called `context`, as with newer BuildKits; that of this Engine refuses it as an invalid argument."""
    text = "FROM scratch\nCOPY --from=page context /page.txt\n"
    built = build(same("http", text, "--build-context", "page=@HTTP@/file.txt"), ours=True)
    assert built.code == 0, built.err[-3000:]


def test_no_cache_runs_everything_again(build: Build) -> None:
    scenario = next(scenario for scenario in SAME if scenario.name == "many-steps")
    build(scenario, ours=True)
    again = build(replace(scenario, flags=("--no-cache",)), ours=True)
    assert again.code == 0, again.err[-3000:]
    assert not set(again.steps()) & again.cached


def test_no_cache_of_one_stage(build: Build) -> None:
    text = "FROM @BASE@ AS one\nRUN echo 1 > /one\nFROM @BASE@ AS two\nRUN echo 2 > /two\nCOPY --from=one /one /\n"
    build(same("filter", text), ours=True)
    again = build(same("filter", text, "--no-cache-filter", "two"), ours=True)
    names = {again.vertices[digest]: digest in again.cached for digest in again.steps()}
    assert names["[one 2/2] RUN echo 1 > /one"]
    assert not names["[two 2/3] RUN echo 2 > /two"]


def test_another_frontend_is_passed_on_to(build: Build, world: World) -> None:
    """A Dockerfile whose syntax line names another image than the one that runs it: that one gets the build."""
    other = world.frontend.replace(":test", ":other")
    subprocess.run(
        [program("skopeo"), "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false",
         f"docker://{world.frontend}", f"docker://{other}"],
        check=True,
    )  # fmt: skip
    built = build(same("forward", f"# syntax={other}\nFROM scratch\nCOPY a.txt /\n"), ours=True)
    assert built.code == 0, built.err[-3000:]


def test_our_solver_builds_an_image_that_does_the_same(
    world: World, registry: str, frontend_sources: tuple[str, ...], build: Build, tmp_path: Path
) -> None:
    """Dockerfile.frontend by `brickyard build`: the same files as by Docker, and the same answers."""
    reference = f"{registry}/brickyard/frontend:own"
    command = [
        sys.executable, "-m", "brickyard", "build", "--root", tmp_path / "root", "--progress", "plain", "--push",
        "-t", reference, *frontend_sources, ROOT,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert image_files(reference, tmp_path / "ours") == image_files(world.frontend, tmp_path / "theirs")
    ours = same("own", f"# syntax={reference}\nFROM @BASE@\nRUN echo > /x\nCOPY --chmod=640 a.txt /\n")
    theirs = replace(ours, dockerfile=ours.dockerfile.replace(reference, world.frontend))
    built = build(ours, ours=False)
    assert built.code == 0, built.err[-3000:]
    assert built.digest == build(theirs, ours=False).digest


def image_files(reference: str, folder: Path) -> dict[str, tuple[int, str]]:
    """The files of an image in a registry by path: mode, and digest or the target of a link."""
    folder.mkdir()
    layout = folder / "layout"
    command = [
        program("skopeo"),
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        f"docker://{reference}",
        f"oci:{layout}:a",
    ]
    subprocess.run(command, check=True)
    subprocess.run([program("umoci"), "raw", "unpack", "--image", f"{layout}:a", folder / "root"], check=True)
    found = {}
    for path in sorted((folder / "root").rglob("*")):
        content = os.readlink(path) if path.is_symlink() else ""
        if path.is_file() and not path.is_symlink():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder / "root"))] = (path.lstat().st_mode, content)
    return found


def test_there_are_enough_scenarios() -> None:
    assert len(SAME) + len(CALLS) + len(FAILURES) >= 80
    assert len({scenario.name for scenario in SAME}) == len(SAME)
