"""Slash paths as Go's `path` package treats them, which decides what op bytes say."""

import posixpath


def clean(path: str) -> str:
    """The shortest equal path; "." for an empty one. Several leading slashes are one."""
    out = posixpath.normpath(path) if path else "."
    return "/" + out.lstrip("/") if out.startswith("//") else out


def join(*parts: str) -> str:
    """The parts that aren't empty, joined and cleaned; an absolute part does not start anew."""
    used = [part for part in parts if part]
    return clean("/".join(used)) if used else ""


def resolve(parent: str, path: str, *, keep_slash: bool = False) -> str:
    """`path` below `parent`, absolute and cleaned; with `keep_slash` a trailing `/` or `/.` stays."""
    out = clean(path)
    if not out.startswith("/"):
        out = join("/", parent, out)
    if keep_slash:
        if path.endswith("/") and not out.endswith("/"):
            out += "/"
        elif path.endswith("/."):
            out = ("/" if out == "/" else out + "/") + "."
    return out
