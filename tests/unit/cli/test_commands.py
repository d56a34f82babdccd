"""The commands over a solver that records what it is asked."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from brickyard import __version__
from brickyard.cli.commands import COMMANDS, build, du, prune
from brickyard.cli.main import run
from brickyard.wire.pb import control_pb2, gateway_pb2


class Recorder:
    """A solver that writes what its exporters should and answers with fixed digests."""

    def __init__(self) -> None:
        self.request: Any = None
        self.error: BaseException | None = None
        self.closed = False
        self.answer: dict[str, bytes] = {}
        self.asked: dict[str, str] = {}
        record = control_pb2.UsageRecord(ID="abc", Size=1234567, Mutable=True, RecordType="regular")
        self.records = [record, control_pb2.UsageRecord(ID="def", Size=5, InUse=True, Shared=True)]

    def solve(self, request: Any, session: Any, on_status: Any, *, client_frontend: Any = None) -> Any:
        """Show one step, write the outputs, or fail."""
        self.request = request
        if client_frontend is not None:
            client_frontend(self.bridge, None)
            return control_pb2.SolveResponse()
        status = control_pb2.StatusResponse(vertexes=[control_pb2.Vertex(digest="sha256:a", name="RUN a")])
        status.vertexes[0].started.seconds = status.vertexes[0].completed.seconds = 1
        status.warnings.add(vertex="sha256:a").short = b"Rule: text"
        on_status(status)
        for index, exporter in enumerate(request.Exporters):
            if exporter.Type in ("oci", "tar"):
                with session.output_file(str(index), {}) as out:
                    out.write(b"archive")
        if self.error is not None:
            raise self.error
        digests = {"containerimage.digest": "sha256:d", "containerimage.config.digest": "sha256:c"}
        return control_pb2.SolveResponse(ExporterResponse=digests)

    @property
    def bridge(self) -> Any:
        """The gateway's bridge: a frontend that gives one answer."""
        recorder = self

        class Bridge:
            def solve(self, request: Any) -> Any:
                recorder.asked = dict(request.FrontendOpt)
                return gateway_pb2.SolveResponse(result=gateway_pb2.Result(metadata=recorder.answer))

        return Bridge()

    def disk_usage(self, request: Any) -> Any:
        """Two records."""
        self.request = request
        return control_pb2.DiskUsageResponse(record=self.records)

    def prune(self, request: Any) -> Iterator[Any]:
        """The first record."""
        self.request = request
        yield self.records[0]

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


@pytest.fixture
def solver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    recorder = Recorder()

    @contextmanager
    def opened(parsed: Any) -> Iterator[Recorder]:
        try:
            yield recorder
        finally:
            recorder.close()

    for module in (build, du, prune):
        monkeypatch.setattr(module, "open_solver", opened)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.delenv("BUILDKIT_PROGRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return recorder


def test_build_sends_what_buildx_sends(solver: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "7")
    monkeypatch.setenv("FROM_ENV", "e")
    words = (
        "build -t app -t other:1 --target prod --build-arg A=1 --build-arg FROM_ENV --build-arg NOT_SET --label k=v "
        "--platform linux/aarch64 --pull --no-cache-filter a,b --network host --add-host h=1.2.3.4 --shm-size 1m "
        "--ulimit nofile=9 --cgroup-parent g --annotation x=y --push --provenance=false --allow security.insecure ."
    )
    assert run(words.split()) == 0
    request = solver.request
    assert request.Frontend == "dockerfile.v0"
    assert dict(request.FrontendAttrs) == {
        "filename": "Dockerfile",
        "target": "prod",
        "build-arg:A": "1",
        "build-arg:FROM_ENV": "e",
        "build-arg:SOURCE_DATE_EPOCH": "7",
        "label:k": "v",
        "platform": "linux/arm64",
        "image-resolve-mode": "pull",
        "no-cache": "a,b",
        "force-network-mode": "host",
        "add-hosts": "h=1.2.3.4",
        "shm-size": "1048576",
        "ulimit": "nofile=9:9",
        "cgroup-parent": "g",
    }
    assert list(request.Entitlements) == ["security.insecure", "network.host"]
    (exporter,) = request.Exporters
    assert exporter.Type == "image"
    assert dict(exporter.Attrs) == {
        "push": "true",
        "unpack": "false",
        "name": "docker.io/library/app:latest,docker.io/library/other:1",
        "annotation.x": "y",
    }
    assert solver.closed


def test_cache_and_attestations_are_sent(solver: Recorder) -> None:
    words = (
        "build --cache-from r.io/x --cache-from type=local,src=none --cache-from type=inline,ref=r.io/y "
        "--cache-to type=registry,ref=r.io/x,mode=max "
        "--sbom --provenance=mode=max,version=v1 --attest type=sbom,generator=g ."
    )
    assert run(words.split()) == 0
    request = solver.request
    assert [(one.Type, dict(one.Attrs)) for one in request.Cache.Imports] == [
        ("registry", {"ref": "r.io/x"}),
        ("inline", {"ref": "r.io/y"}),
    ]
    assert [(one.Type, dict(one.Attrs)) for one in request.Cache.Exports] == [
        ("registry", {"ref": "r.io/x", "mode": "max"})
    ]
    assert request.FrontendAttrs["attest:sbom"] == ""
    assert request.FrontendAttrs["attest:provenance"] == "mode=max,version=v1"
    assert run("build --provenance=false --sbom=false .".split()) == 0
    assert not [key for key in solver.request.FrontendAttrs if key.startswith("attest:")]


@pytest.mark.parametrize(
    ("words", "document", "said", "code"),
    [
        ("--check", {"warnings": []}, "Check complete, no warnings found.\n", 0),
        ("--call check", {"warnings": [{}]}, "Check complete, 1 warning has been found!\nthe text\n", 1),
        ("--call outline", {}, "the text\n", 0),
        ("--call targets,format=json", {"targets": []}, '{\n  "targets": []\n}\n', 0),
    ],
)
def test_calls_print_the_answer(
    solver: Recorder, capfd: pytest.CaptureFixture[str], words: str, document: object, said: str, code: int
) -> None:
    solver.answer = {"result.txt": b"the text\n", "result.json": json.dumps(document).encode()}
    assert run(["build", *words.split(), "."]) == code
    assert capfd.readouterr().out == said
    assert solver.asked["requestid"].startswith("frontend.")
    assert solver.asked["filename"] == "Dockerfile"
    assert not solver.request.Frontend


def test_build_writes_its_files(solver: Recorder, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = "build --iidfile id --metadata-file meta.json -o type=oci,dest=out/a.tar ."
    assert run(words.split()) == 0
    assert (tmp_path / "id").read_text() == "sha256:c"
    assert json.loads((tmp_path / "meta.json").read_text())["containerimage.digest"] == "sha256:d"
    assert (tmp_path / "out/a.tar").read_bytes() == b"archive"
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err == (
        "#1 RUN a\n#1 WARN: Rule: text\n#1 DONE 0.0s\n\n"
        " 1 warning found (--debug shows where and why):\n - Rule: text\n"
    )


def test_flags_of_docker_build_that_do_nothing(solver: Recorder, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("build -q --rm --force-rm --compress=false --memory 1g --squash=false .".split()) == 0
    assert capfd.readouterr().err == (
        "WARNING: --memory has no effect: the limits of a build are --ulimit and --cgroup-parent\n"
    )
    assert run("build --builder other .".split()) == 2
    assert "--builder other: brickyard builds with the solver it brings along" in capfd.readouterr().err


def test_the_platform_comes_from_dockers_variable(solver: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/arm64")
    assert run(["build", "."]) == 0
    assert solver.request.FrontendAttrs["platform"] == "linux/arm64"
    assert run("build --platform linux/amd64 .".split()) == 0
    assert solver.request.FrontendAttrs["platform"] == "linux/amd64"


def test_quiet_prints_the_id(solver: Recorder, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["build", "-q", "."]) == 0
    assert capfd.readouterr() == ("sha256:c\n", "")


def test_progress_comes_from_the_environment(
    solver: Recorder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BUILDKIT_PROGRESS", "rawjson")
    assert run(["build", "."]) == 0
    assert json.loads(capfd.readouterr().err)["vertexes"][0]["name"] == "RUN a"


def test_a_failed_build_leaves_nothing(solver: Recorder, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "id").write_text("old")
    (tmp_path / "a.tar").write_text("old")
    solver.error = RuntimeError('process "x" did not complete successfully: exit code: 1')
    assert run(["build", "--iidfile", "id", "-o", "type=tar,dest=a.tar", "."]) == 1
    assert capfd.readouterr().err.endswith('ERROR: process "x" did not complete successfully: exit code: 1\n')
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "Dockerfile": "FROM scratch\n",
        "a.tar": "old",
    }
    assert solver.closed


def test_an_interrupt_is_130(solver: Recorder, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    solver.error = KeyboardInterrupt()
    assert run(["build", "-o", "type=tar,dest=a.tar", "."]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["Dockerfile"]
    assert "Traceback" not in capfd.readouterr().err
    assert solver.closed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--cache-to type=gha .", "cache of type 'gha' is not supported"),
        ("--cache-from src=x .", "the type is missing"),
        ("--provenance=mode .", "'mode' is no key=value pair"),
        ("--attest type=vex .", "the type is sbom or provenance, not 'vex'"),
        ("--call tragets .", "--call tragets: write one of"),
        ("--check --call outline .", "exclude each other"),
        ("--network bridge .", "--network bridge: write default, none or host"),
        ("--progress fancy .", "--progress fancy: write one of"),
        ("-q --progress plain .", "exclude each other"),
        ("--progress tty .", "standard error is not a terminal"),
        ("", "needs CONTEXT"),
        (". more", "unexpected argument 'more'"),
    ],
)
def test_usage_errors_are_2(solver: Recorder, capfd: pytest.CaptureFixture[str], words: str, said: str) -> None:
    assert run(["build", *words.split()]) == 2
    assert said in capfd.readouterr().err
    assert solver.request is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nowhere", "build context 'nowhere' is not a folder"),
        ("-f nothing .", "failed to read the Dockerfile: nothing is not there"),
        ("--push .", "a push needs a name"),
        ("--secret id=x,src=nothing .", "secret x: the file nothing is not there"),
        ("--build-context base=oci-layout://nowhere .", "OCI layout 'nowhere' not found"),
    ],
)
def test_what_cannot_be_built_is_1(solver: Recorder, capfd: pytest.CaptureFixture[str], words: str, said: str) -> None:
    assert run(["build", *words.split()]) == 1
    error = capfd.readouterr().err
    assert said in error
    assert error.startswith("ERROR: ")


def test_du(solver: Recorder, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["du"]) == 0
    assert capfd.readouterr().out == (
        "ID     RECLAIMABLE   SIZE      LAST ACCESSED\n"
        "abc*   true          1.235MB\n"
        "def    false         5B*\n"
        "Shared:        5B\n"
        "Private:       1.235MB\n"
        "Reclaimable:   1.235MB\n"
        "Total:         1.235MB\n"
    )
    assert run(["du", "--verbose", "--filter", "type=regular", "--filter", "until=1h"]) == 0
    assert list(solver.request.filter) == ["type==regular"]
    assert solver.request.ageLimit == 3600 * 10**9
    assert "Mutable:       true\n" in capfd.readouterr().out


def test_prune_asks(
    solver: Recorder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for answer, asked, code in (("n\n", False, 0), ("", False, 1), ("y\n", True, 0)):
        (tmp_path / "answer").write_text(answer)
        with (tmp_path / "answer").open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            assert run(["prune"]) == code
        assert (solver.request is not None) is asked
    out = capfd.readouterr().out
    assert "This will remove all dangling build cache" in out
    assert out.endswith("abc*   true          1.235MB\nTotal:   1.235MB\n")


def test_prune_limits(solver: Recorder) -> None:
    words = "prune -af --keep-storage 1g --max-used-space 2g --filter id=x --filter until=24h"
    assert run(words.split()) == 0
    request = solver.request
    assert request.all
    assert (request.reservedSpace, request.maxUsedSpace, request.keepDuration) == (1 << 30, 2 << 30, 86400 * 10**9)
    assert list(request.filter) == ["id~=x"]


def test_slips(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["biuld", "."]) == 2
    assert "hint: did you mean 'brickyard build'?" in capfd.readouterr().err
    assert run(["--verison"]) == 2
    assert run(["base", "mkae", "x"]) == 2


def test_help_and_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    listing = capfd.readouterr().out
    for name in COMMANDS:
        assert name in listing
        assert run([name, "--help"]) == 0
        assert capfd.readouterr().out.startswith(f"Usage:  brickyard {name}")
        assert run(["help", name]) == 0
        assert capfd.readouterr().out.startswith(f"Usage:  brickyard {name}")
    assert run(["--version"]) == 0
    assert capfd.readouterr().out == f"brickyard {__version__}\n"


def test_completion_scripts(capfd: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert run(["completion", shell]) == 0
        assert "build-context" in capfd.readouterr().out
    assert run(["completion", "tcsh"]) == 2


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from brickyard.cli.main import run; run(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"grpc", "google.protobuf", "lark", "rich", "httpx", "sqlite3", "argparse", "asyncio", "ssl"}
    assert not heavy & set(done.stdout.splitlines()[-1].split())


def test_a_reader_that_leaves_is_no_traceback() -> None:
    command = f"{sys.executable} -m brickyard help build | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stderr == ""
