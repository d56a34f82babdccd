"""The wheel and the source archive: what is in them, and that the wheel works in an environment of its own."""

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("grammar", "wire", "oci", "llb", "frontend", "solver", "client", "cli")

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel.

    What it depends on comes from this environment, by a path that is searched last: no package index is needed, and
    the editable install of the checkout stays out, because the `.pth` files of such a folder aren't read.
    """
    folder = tmp_path_factory.mktemp("wheel") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", wheel], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def tracked() -> set[str]:
    """The files of the rooms, as paths in the wheel; generated and ignored ones aside."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *ROOMS]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {f"brickyard/{path}" for path in listed if (ROOT / path).is_file()}


def test_wheel_has_every_file_and_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    assert {name.split("/")[0] for name in names} == {"brickyard", f"brickyard-{version()}.dist-info"}
    assert tracked() <= names
    assert "brickyard/py.typed" in names
    assert "brickyard/grammar/dockerfile/dockerfile.lark" in names
    assert [name for name in names if "__pycache__" in name or "/tests/" in name] == []


def test_source_archive_has_every_file(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    assert [member.name for member in members if member.issym() or member.islnk()] == []
    names = {member.name.split("/", 1)[1] for member in members if member.isfile()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "PKG-INFO"} <= names
    assert tracked() <= names


def test_command_says_its_version(venv: Path) -> None:
    assert version() in run(venv / "bin/brickyard", "--version")


def test_only_brickyard_is_importable(venv: Path, tmp_path: Path) -> None:
    program = (
        "import importlib.util, brickyard, brickyard.llb\n"
        f"print([name for name in {ROOMS} if importlib.util.find_spec(name)])\n"
        "print(brickyard.__file__)\n"
    )
    found, place = run(venv / "bin/python", "-c", program, cwd=tmp_path).splitlines()
    assert found == "[]"
    assert place.startswith(str(venv))


def test_build_to_a_tar(venv: Path, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY hello.txt /greeting/\nLABEL a=b\n")
    (context / "hello.txt").write_text("hello\n")
    out = tmp_path / "out.tar"
    run(venv / "bin/brickyard", "build", "--root", tmp_path / "root", "-o", f"type=tar,dest={out}", context)
    with tarfile.open(out) as archive:
        member = archive.extractfile("greeting/hello.txt")
        assert member is not None
        assert member.read() == b"hello\n"


def version() -> str:
    """The version in the tree."""
    names: dict[str, str] = {}
    exec((ROOT / "brickyard/__init__.py").read_text(), names)
    return names["__version__"]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
