"""The frontend image: what is packed, that it runs, and modules that are run late."""

import ast
import marshal
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import brickyard
from brickyard.frontend.image import boot


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's files, laid out by this interpreter."""
    out = tmp_path_factory.mktemp("image")
    pack = [sys.executable, "-m", "brickyard.frontend.image.pack", str(out)]
    done = subprocess.run(pack, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def test_the_bundle_has_what_is_needed_and_no_more(packed: Path) -> None:
    data = (packed / "brickyard/bundle").read_bytes()
    size = int.from_bytes(data[:8], "little")
    index = marshal.loads(data[8 : 8 + size])
    assert {"brickyard.frontend.gateway.run", "brickyard.grammar.dockerfile._tables", "jinja2"} <= set(index)
    assert not [name for name in index if name.startswith(("brickyard.solver", "brickyard.client", "grpc", "lark"))]
    name = "brickyard.frontend.gateway.run"
    offset, length, package = index[name]
    code = marshal.loads(data[8 + size + offset : 8 + size + offset + length])
    assert (code.co_filename, package) == ("run.py", False)


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_the_packed_image_builds(packed: Path, frontend) -> None:
    command = ["/usr/sbin/chroot", str(packed), "/usr/bin/python3", "-I", "-S", "-X", "utf8", "/brickyard/boot.pyc"]
    gateway = frontend.gateway("# check=error=true\nFROM alpine\nRUN <<EOF\nx\nEOF\nCOPY --parents a/*.c /b\nCMD x\n")
    assert frontend.run(gateway, {"cmdline": "x"}, command) == (0, "")
    assert gateway.returned[0].error.message == "lint violation found for rules: JSONArgsRecommended"
    template = frontend.gateway("# brickyard: template\nFROM {{ b }}\n")
    assert frontend.run(template, {"cmdline": "x", "build-arg:b": "scratch"}, command) == (0, "")
    assert template.returned[0].result.ref.id
    several = frontend.gateway("FROM alpine\nMAINTAINER x\nENV A=$PTH\nWORKDIR a\nHEALTHCHECK NONE\n")
    platforms = "linux/amd64,linux/arm64,linux/s390x,linux/riscv64"
    assert frontend.run(several, {"cmdline": "x", "platform": platforms}, command) == (0, "")
    assert len(several.returned[0].result.refs.refs) == 4


def test_no_dataclass_costs_the_import_of_inspect() -> None:
    """Python makes the docstring of one that has none out of its signature, and imports much to read that."""
    root = Path(brickyard.__file__).parent
    bare, found = [], 0
    for room in ("grammar", "wire", "oci", "llb", "frontend"):
        for path in (root / room).resolve().rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                made = isinstance(node, ast.ClassDef) and any(
                    "dataclass" in ast.unparse(decorator) for decorator in node.decorator_list
                )
                found += made
                if made and not ast.get_docstring(node):
                    bare.append(f"{room}/{path.name}:{node.lineno}")
    assert found > 50
    assert not bare


def late(run) -> ModuleType:
    """A module that is run, by a function, when it is looked into."""
    module = ModuleType("late")
    module.__spec__ = SimpleNamespace(loader=SimpleNamespace(run=run))  # type: ignore[assignment]
    module.__class__ = boot.Late
    return module


def test_a_late_module_is_run_once_and_other_threads_wait() -> None:
    begun, go_on, runs, seen = threading.Event(), threading.Event(), [], []

    def run(module: ModuleType) -> None:
        runs.append(1)
        module.first = 1  # type: ignore[attr-defined]
        begun.set()
        assert go_on.wait(10)
        module.second = 2  # type: ignore[attr-defined]

    module = late(run)
    threads = [threading.Thread(target=lambda: seen.append(module.second)) for _ in range(4)]
    threads[0].start()
    assert begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    assert module.first == 1
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert (seen, runs) == ([2] * 4, [1])
    assert type(module) is ModuleType


def test_a_late_module_that_looks_into_itself() -> None:
    found = []

    def run(module: ModuleType) -> None:
        found.append(getattr(module, "later", "not yet"))
        module.later = "now"  # type: ignore[attr-defined]

    assert late(run).later == "now"
    assert found == ["not yet"]
    with pytest.raises(AttributeError):
        late(lambda module: None).missing  # noqa: B018
