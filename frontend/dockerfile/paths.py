"""Paths of a Dockerfile for the operating system of the image: on Windows drive letters and backslashes count."""

from ...llb.paths import clean, join


def to_slash(path: str, os: str) -> str:
    """With forward slashes."""
    return path.replace("\\", "/") if os == "windows" else path


def without_drive(path: str, os: str, *, keep_slash: bool = False) -> str:
    """Without the drive letter that a Windows path may have.

    Raises:
        ValueError: for another drive than C:, a bare drive, or a network path.
    """
    if os != "windows":
        return path
    if len(path) == 2 and path[1] == ":":
        raise ValueError(f"no path is given after the drive in {path!r}")
    if to_slash(path[:2], os) == "//":
        raise ValueError(f"{path!r}: network (UNC) paths are not supported")
    drive, separator, rest = path.partition(":")
    if separator and drive.lower() != "c":
        raise ValueError(f"{path!r} is not on the system drive (C:)")
    slashed = to_slash(rest if separator else path, os)
    cleaned = clean(slashed)
    return cleaned + "/" if keep_slash and len(cleaned) > 1 and slashed.endswith("/") else cleaned


def is_absolute(path: str, os: str) -> bool:
    """Whether a path starts at the root."""
    try:
        return to_slash(without_drive(path, os), os).startswith("/")
    except ValueError:
        return False


def normalize(parent: str, path: str, os: str, *, keep_slash: bool = False) -> str:
    """`path` below `parent`, absolute and with forward slashes. Raises ValueError as `without_drive` does."""
    path = to_slash(path, os)
    parent = without_drive(to_slash(parent, os) or "/", os, keep_slash=keep_slash)
    if not is_absolute(parent, os):
        parent = join("/", parent)
    out = without_drive(path or parent, os, keep_slash=keep_slash)
    if not is_absolute(out, os):
        out = join(parent, out)
    if keep_slash:
        if path.endswith("/") and not out.endswith("/"):
            out += "/"
        elif path.endswith("/."):
            out = ("/" if out == "/" else out + "/") + "."
    return to_slash(out, os)


def working_dir(current: str, path: str, os: str) -> str:
    """The working directory after WORKDIR, with the separators of the operating system."""
    out = normalize(current, path, os)
    return out.replace("/", "\\") if os == "windows" else out
