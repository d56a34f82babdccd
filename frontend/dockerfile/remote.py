"""Sources of ADD that are not files of the build context: git repositories and URLs."""

import posixpath
from urllib.parse import unquote, urlsplit

from ...llb import caps
from ...llb.paths import join
from ...llb.state import Notes, State, source
from .gitref import GitRef


def is_url(text: str) -> bool:
    """Whether a source is an http(s) URL."""
    return text.startswith(("http://", "https://"))


def git(ref: GitRef, keep_git_dir: bool, checksum: str, notes: Notes, *, mtime: str = "") -> State:
    """The files of a git repository; `mtime` "commit" gives them the commit's time."""
    identifier = "git://" + ref.host + join("/", ref.path)
    if ref.ref or ref.subdir:
        identifier += "#" + ref.ref + (f":{ref.subdir}" if ref.subdir else "")
    wanted = [caps.SOURCE_GIT, caps.SOURCE_GIT_FULL_URL]
    attrs = {
        "git.fullurl": ref.remote,
        "git.authtokensecret": "GIT_AUTH_TOKEN",
        "git.authheadersecret": "GIT_AUTH_HEADER",
    }
    if keep_git_dir:
        attrs["git.keepgitdir"] = "true"
        wanted.append(caps.SOURCE_GIT_KEEP_DIR)
    if ref.scheme == "ssh":
        attrs["git.mountsshsock"] = "default"
        wanted += [caps.SOURCE_GIT_KNOWN_SSH_HOSTS, caps.SOURCE_GIT_MOUNT_SSH_SOCK]
    if checksum:
        attrs["git.checksum"] = checksum
        wanted.append(caps.SOURCE_GIT_CHECKSUM)
    if ref.submodules is False:
        attrs["git.skipsubmodules"] = "true"
        wanted.append(caps.SOURCE_GIT_SKIP_SUBMODULES)
    if mtime:
        attrs["git.mtime"] = mtime
        wanted.append(caps.SOURCE_GIT_MTIME)
    if ref.fetch_by_commit:
        attrs["git.fetchbycommit"] = "true"
        wanted.append(caps.SOURCE_GIT_FETCH_BY_COMMIT)
    return source(identifier, attrs, wanted=wanted, notes=notes)


def file_name(url: str) -> str:
    """The name that a download is given."""
    try:
        base = posixpath.basename(unquote(urlsplit(url).path).rstrip("/"))
    except ValueError:
        base = ""
    return base if base not in ("", ".") else "__unnamed__"


def http(url: str, checksum: str, notes: Notes, *, filename: str = "") -> State:
    """The one file that a URL gives, under a name of its own or the given one."""
    attrs = {"http.filename": filename or file_name(url)}
    wanted = [caps.SOURCE_HTTP]
    if checksum:
        attrs["http.checksum"] = checksum
        wanted.append(caps.SOURCE_HTTP_CHECKSUM)
    return source(url, attrs, wanted=wanted, notes=notes)
