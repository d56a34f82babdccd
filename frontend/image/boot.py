"""The first module of the frontend image: imports come out of one file, and what Python would work out anew is there.

It runs before anything can be imported, so it needs nothing but what is built into the interpreter.
"""

import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader
from _thread import RLock
from gc import set_threshold
from marshal import loads
from posix import O_RDONLY, pread
from posix import open as open_file

BUNDLE = "/brickyard/bundle"
ENTRY = "brickyard.frontend.gateway.run"
LATE = frozenset(
    {
        "calendar",
        "difflib",
        "google.protobuf.descriptor_database",
        "google.protobuf.internal.python_message",
        "google.protobuf.text_encoding",
        "inspect",
        "ipaddress",
        "traceback",
    }
)
"""Modules that others import by name and hardly ever look into: they are run when one does."""
RULES = "brickyard.frontend.lint.rules."
"""Most files break no rule."""
Module = type(sys)
LOCK = RLock()


class Late(Module):
    """A module that has not been run yet."""

    def __getattr__(self, name):
        """The first look into it runs it; other threads wait until that is done."""
        with LOCK:
            if self.__class__ is Late:
                self.__class__ = Running
                self.__spec__.loader.run(self)
                self.__class__ = Module
        return getattr(self, name)


class Running(Module):
    """A module that is being run."""

    def __getattr__(self, name):
        """Another thread waits; the one that runs it has what there is so far."""
        with LOCK:
            if self.__class__ is Running:
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} yet")
        return getattr(self, name)


class Bundle:
    """The finder and loader of everything in the bundle: a head with an index, then marshalled code.

    The head's first eight bytes are its length; the index has a module's offset, size and whether it is a package, or
    the path of an extension.
    """

    def __init__(self, path):
        """Open the file and read its index."""
        self.file = open_file(path, O_RDONLY)
        size = int.from_bytes(pread(self.file, 8, 0), "little")
        self.start = 8 + size
        self.index = loads(pread(self.file, size, 8))

    def read(self, name):
        """What the bundle holds under a name."""
        offset, size, _ = self.index[name]
        return loads(pread(self.file, size, self.start + offset))

    def find_spec(self, name, path=None, target=None):
        """The import system asks for a module."""
        entry = self.index.get(name)
        if entry is None:
            return None
        if isinstance(entry, str):
            return ModuleSpec(name, ExtensionFileLoader(name, entry), origin=entry)
        spec = ModuleSpec(name, self, is_package=entry[2])
        spec.cached = None
        return spec

    def create_module(self, spec):
        """The usual module."""
        return

    def exec_module(self, module):
        """Run a module's code, or leave that for later."""
        name = module.__spec__.name
        module.__file__ = name
        if name in LATE or name.startswith(RULES):
            module.__class__ = Late
        else:
            self.run(module)

    def run(self, module):
        """Run a module's code."""
        exec(self.read(module.__spec__.name), module.__dict__)


def prepare(bundle):
    """Take expressions and generated methods from the bundle, where Python would compile them at every start."""
    known = bundle.read("")
    import re._compiler as compiler

    patterns, whole = known["patterns"], compiler.compile

    def compile_pattern(pattern, flags=0):
        found = patterns.get((pattern, int(flags))) if isinstance(pattern, str | bytes) else None
        if found is None:
            return whole(pattern, flags)
        text, all_flags, code, *rest = found
        return compiler._sre.compile(text, all_flags, memoryview(code).cast("I").tolist(), *rest)

    compiler.compile = compile_pattern
    import dataclasses

    sources = known["sources"]

    def run(source, *namespaces):
        code = sources.get(source) if isinstance(source, str) else None
        return exec(source if code is None else loads(code), *namespaces)

    dataclasses.exec = run


def main():
    """Start the frontend."""
    # Hardly any garbage has cycles here, and there is much to load: looking for them is left to large builds.
    set_threshold(100_000)
    bundle = Bundle(BUNDLE)
    sys.meta_path.insert(0, bundle)
    sys.path.clear()
    prepare(bundle)
    from importlib import import_module

    return import_module(ENTRY).main()


if __name__ == "__main__":
    from posix import _exit

    # There is nothing to clean up, and taking an interpreter down takes time.
    _exit(main())
