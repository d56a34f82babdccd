"""Lays out the frontend image's files: the interpreter with the libraries that it loads, and one file of modules.

Runs in the image's build stage, by the interpreter that the image is to have:

    python -m brickyard.frontend.image.pack OUT

Nothing is listed by hand: modules are found by following the import statements from the entry point, libraries by
looking at what the process has mapped once all of that is imported.
"""

import dataclasses
import importlib
import importlib.machinery
import importlib.util
import marshal
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import types
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOTS = (
    "brickyard.frontend.gateway.run",
    "brickyard.frontend.dockerfile.frontend",
    "brickyard.frontend.template.render",
)
STARTUP = ("encodings", "encodings.aliases", "encodings.utf_8", "encodings.latin_1", "encodings.ascii")
"""What the interpreter imports before it runs anything."""
CODECS = ("encodings.utf_16", "encodings.latin_1", "encodings.ascii", "encodings.idna", "encodings.cp437")
LEFT_OUT = frozenset(
    "asyncio brickyard.cli brickyard.client brickyard.solver concurrent.futures.process cmd code ctypes curses "
    "distutils doctest email ensurepip ftplib getpass grpc http httpx idlelib interegular isal lark.tools lib2to3 "
    "multiprocessing netrc numpy optparse pdb pip pkg_resources pty pydoc readline regex setuptools site smtplib "
    "socketserver sqlite3 ssl subprocess test tkinter tty unittest urllib.request venv webbrowser xml xmlrpc".split()
)
"""Modules that some import statement names, and that a frontend never gets to; what the sample imports stays."""


NEVER = frozenset({"_hashlib", "lark"})
"""What is imported here and not needed: OpenSSL for what Python can compute itself, and Lark for the tables that are
made here."""


def _left_out(name: str) -> bool:
    parts = name.split(".")
    above = {".".join(parts[: n + 1]) for n in range(len(parts))}
    return bool(above & NEVER) or (name not in sys.modules and bool(above & LEFT_OUT))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _imports(code: types.CodeType, package: str) -> Iterator[str]:
    """The modules that code names in import statements, anywhere in it; of `from a import b` also `a.b`."""
    import dis

    for one in _codes(code):
        pending: list[Any] = []
        for instruction in dis.get_instructions(one):
            if instruction.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
                pending.append(instruction.argval)
            elif instruction.opname == "IMPORT_NAME" and len(pending) >= 2:
                level, names = pending[-2], pending[-1]
                base = instruction.argval or ""
                if isinstance(level, int) and level:
                    try:
                        base = importlib.util.resolve_name("." * level + base, package)
                    except ImportError:
                        continue
                yield base
                if isinstance(names, tuple):
                    yield from (f"{base}.{name}" for name in names)


def _find(name: str) -> importlib.machinery.ModuleSpec | None:
    """Where a module comes from, also one that puts another in its place when it is imported."""
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.name != name:
            parent = sys.modules[name.rpartition(".")[0]]
            spec = importlib.machinery.PathFinder.find_spec(name, parent.__path__)
    except (ImportError, ValueError, AttributeError, KeyError):
        return None
    return spec


class Found:
    """The modules that there are to pack: code, or the path of an extension."""

    def __init__(self) -> None:
        self.code: dict[str, tuple[types.CodeType, bool]] = {}
        self.extensions: dict[str, str] = {}

    def follow(self, names: Iterable[str]) -> None:
        """Add modules with all that they import."""
        pending = [*names]
        seen: set[str] = set()
        while pending:
            name = pending.pop()
            parent = name.rpartition(".")[0]
            if name in seen or _left_out(name):
                continue
            seen.add(name)
            if parent:
                pending.append(parent)
            spec = _find(name)
            if spec is None or spec.loader is None or spec.origin == "built-in":
                continue
            loader: Any = spec.loader
            is_package = spec.submodule_search_locations is not None
            package = name if is_package else parent
            if spec.origin == "frozen":
                if not name.startswith("importlib._bootstrap"):
                    pending.extend(_imports(loader.get_code(name), package))
                continue
            if spec.origin is not None and spec.origin.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)):
                self.extensions[name] = os.path.realpath(spec.origin)
                continue
            code = loader.get_code(name)
            if code is None:
                continue
            self.code[name] = (code, is_package)
            pending.extend(_imports(code, package))


class Recorder:
    """What Python compiles while modules are imported and files are built: expressions, and generated methods."""

    def __init__(self) -> None:
        self.patterns: dict[tuple[str | bytes, int], tuple[Any, ...]] = {}
        self.sources: dict[str, bytes] = {}

    def install(self) -> None:
        """Begin to record; must come before the modules are imported."""
        import re._compiler as compiler  # type: ignore[import-not-found]

        whole = compiler.compile
        made: list[tuple[Any, ...]] = []

        def compile_code(*args: Any) -> Any:
            made.append(args)
            return real(*args)

        real = compiler._sre.compile
        compiler._sre = types.SimpleNamespace(**{**vars(compiler._sre), "compile": compile_code})

        def compile_pattern(pattern: Any, flags: Any = 0) -> Any:
            found = whole(pattern, flags)
            if made and isinstance(pattern, str | bytes):
                text, all_flags, code, groups, names, numbers = made[-1]
                plain = (text, int(all_flags), array("I", code).tobytes(), int(groups), dict(names), tuple(numbers))
                self.patterns[(pattern, int(flags))] = plain
            return found

        compiler.compile = compile_pattern
        re.purge()

        def run(source: Any, *namespaces: Any) -> None:
            if isinstance(source, str):
                self.sources[source] = marshal.dumps(compile(source, "<generated>", "exec"))
            exec(source, *namespaces)

        dataclasses.exec = run  # type: ignore[attr-defined]


def _without_paths(code: types.CodeType) -> types.CodeType:
    """Code that does not tell where it was compiled."""
    name = os.path.basename(code.co_filename)
    constants = tuple(_without_paths(c) if isinstance(c, types.CodeType) else c for c in code.co_consts)
    return code.replace(co_filename=name, co_consts=constants)


def write_bundle(path: Path, found: Found, recorder: Recorder) -> None:
    """Write the file of modules, in the form that `boot.py` reads."""
    index: dict[str, Any] = dict(sorted(found.extensions.items()))
    blobs: list[bytes] = []
    offset = 0
    known = marshal.dumps({"patterns": recorder.patterns, "sources": recorder.sources})
    entries: list[tuple[str, bytes, bool]] = [("", known, False)]
    entries += [
        (name, marshal.dumps(_without_paths(code)), package) for name, (code, package) in sorted(found.code.items())
    ]
    for name, data, package in entries:
        index[name] = (offset, len(data), package)
        blobs.append(data)
        offset += len(data)
    head = marshal.dumps(index)
    path.write_bytes(b"".join([len(head).to_bytes(8, "little"), head, *blobs]))


def _links_to(path: Path) -> Iterator[Path]:
    """The links beside a library that lead to it: it is asked for by another name than its file's."""
    for other in path.parent.glob("*.so.*"):
        if other.is_symlink() and other.resolve() == path:
            yield other


_SHOW_MAPS = """
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
for name, path in zip(sys.argv[1::2], sys.argv[2::2]):
    loader = ExtensionFileLoader(name, path)
    try:
        loader.exec_module(module_from_spec(ModuleSpec(name, loader, origin=path)))
    except ImportError:
        pass
print(open("/proc/self/maps").read())
"""


def _mapped(extensions: Mapping[str, str]) -> Iterator[Path]:
    """The programs and libraries that a process of this interpreter maps with these extensions."""
    pairs = [text for pair in extensions.items() for text in pair]
    command = [sys.executable, "-I", "-S", "-c", _SHOW_MAPS, *pairs]
    maps = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    seen = set()
    for line in maps.splitlines():
        name = line.partition("/")[2]
        if name and name not in seen and not name.endswith("(deleted)"):
            seen.add(name)
            path = Path("/" + name)
            with path.open("rb") as stream:
                if stream.read(4) == b"\x7fELF":
                    yield path


def _loaders() -> Iterator[Path]:
    """Where programs look for the loader."""
    for folder in ("/lib", "/lib64", "/usr/lib", "/usr/lib64"):
        if os.path.isdir(folder):
            yield from (path for path in Path(folder).glob("ld-*.so*") if path.exists())


def _copy(source: Path, out: Path) -> None:
    """Copy a file to the same path under `out`."""
    target = out / str(source).lstrip("/")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755)


def _link(path: Path, file: Path, out: Path) -> None:
    """Put a link to a file that is copied at a path under `out`."""
    target = out / str(path).lstrip("/")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(os.path.relpath(file, path.parent.resolve()))


def write_interpreter(out: Path, found: Found) -> None:
    """Copy the interpreter, the libraries, and of the standard library what it needs before it runs anything."""
    for name in ("bin", "lib", "lib64"):
        folder = Path("/", name)
        if folder.is_symlink():
            (out / folder.resolve().relative_to("/")).mkdir(parents=True, exist_ok=True)
            (out / name).symlink_to(folder.resolve().relative_to("/"))
    mapped = [path for path in _mapped(found.extensions) if path not in {Path(p) for p in found.extensions.values()}]
    for path in mapped:
        _copy(path, out)
        for link in _links_to(path):
            _link(link, path, out)
    for loader in _loaders():
        if loader.resolve() in mapped:
            _link(loader, loader.resolve(), out)
    executable = Path(sys.executable).resolve()
    _copy(executable, out)
    _link(Path("/usr/bin/python3"), executable, out)
    for path_text in found.extensions.values():
        _copy(Path(path_text), out)
    library = out / sysconfig.get_path("stdlib").lstrip("/")
    library.mkdir(parents=True, exist_ok=True)
    # The interpreter knows its library by this file.
    (library / "os.py").write_text("")
    (library / "lib-dynload").mkdir(exist_ok=True)
    for name in STARTUP:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        inside = name.replace(".", "/") + ("/__init__" if spec.submodule_search_locations is not None else "")
        target = library / f"{inside}.pyc"
        target.parent.mkdir(parents=True, exist_ok=True)
        py_compile.compile(
            spec.origin,
            str(target),
            name,
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def _exercise(build: Callable[[], None]) -> None:
    """Import what is imported late, and compile what is compiled late."""
    for name in ROOTS:
        importlib.import_module(name)
    build()


def _check_protobuf() -> None:
    from google.protobuf.internal import api_implementation

    if api_implementation.Type() != "upb":
        raise SystemExit("protobuf's compiled part does not load here: is libstdc++ missing, or another Python meant?")


def main(out: Path) -> None:
    """Lay out the image under `out`."""
    recorder = Recorder()
    recorder.install()
    from . import sample

    _exercise(sample.build)
    _check_protobuf()
    found = Found()
    found.follow([*ROOTS, *CODECS, "encodings", "codecs"])
    sample.write_tables(found.code)
    folder = out / "brickyard"
    folder.mkdir(parents=True, exist_ok=True)
    write_bundle(folder / "bundle", found, recorder)
    boot = Path(__file__).with_name("boot.py")
    py_compile.compile(
        str(boot),
        str(folder / "boot.pyc"),
        "boot.py",
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    write_interpreter(out, found)
    for name, mode in (
        ("proc", 0o755),
        ("dev", 0o755),
        ("sys", 0o755),
        ("etc", 0o755),
        ("tmp", 0o1777),
        ("run", 0o755),
    ):
        (out / name).mkdir(exist_ok=True)
        (out / name).chmod(mode)
    (out / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/false\nfrontend:x:65532:65532:frontend:/:/bin/false\n")
    (out / "etc/group").write_text("root:x:0:\nfrontend:x:65532:\n")
    sizes = {path.stat().st_ino: path.stat().st_size for path in out.rglob("*") if path.is_file()}
    print(f"{len(found.code)} modules, {len(found.extensions)} extensions, {sum(sizes.values()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
