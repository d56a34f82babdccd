"""The Dockerfiles that a command works on: named ones, standard input, or the one of this folder."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..client.errors import ClientError
from ..grammar.errors import not_utf8

STDIN = "-"


def chosen(arguments: Sequence[str]) -> list[str]:
    """The files of a command line, by default `Dockerfile`; a folder stands for the one in it."""
    names = list(arguments) or ["."]
    return [str(Path(name) / "Dockerfile") if name != STDIN and Path(name).is_dir() else name for name in names]


def read(name: str) -> str:
    """A file's text, with its line ends.

    Raises:
        ClientError: it is not there, or not UTF-8.
    """
    try:
        data = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
        return data.decode()
    except UnicodeDecodeError as error:
        raise ClientError(not_utf8(name, error)) from None
    except OSError as error:
        raise ClientError(f"{name}: {error.strerror}", "name the Dockerfile, or its folder") from error


def is_template(name: str, text: str) -> bool:
    """Whether a file is a template, which is no Dockerfile before it is rendered; says so where it is one."""
    if not (name.endswith((".j2", ".jinja2")) or ("brickyard" in text and "template" in text)):
        return False
    # Jinja is large.
    from ..frontend.template.render import is_template as really

    if not really(text, name):
        return False
    print(f"skipped {name}: a template; `brickyard build --check` checks what it makes", file=sys.stderr)
    return True


def write(name: str, text: str) -> None:
    """Put a text in the place of a file's, with its mode and through links; standard input's goes to the output.

    Raises:
        ClientError: where it can't be written.
    """
    if name == STDIN:
        sys.stdout.write(text)
        return
    path = Path(name).resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(text.encode())
        temporary.chmod(path.stat().st_mode & 0o7777)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ClientError(f"{name}: {error.strerror}") from error
