"""Git repositories named in ADD: `https://host/repo.git#ref:subdir`, `git@host:repo`, and the query form.

Source: Dockerfile reference, "Adding Git repositories"; Docker's documentation of git build contexts.
"""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from ...llb.paths import join

_SCHEME = re.compile(r"^[a-zA-Z0-9]+://")
_SCP = re.compile(r"([a-zA-Z0-9_-]+)@([a-zA-Z0-9.-]+):(.*?)(?:\?(.*?))?(?:#(.*))?\Z")
_BOOLS = {"1": True, "t": True, "T": True, "true": True, "TRUE": True, "True": True}
_BOOLS |= {"0": False, "f": False, "F": False, "false": False, "FALSE": False, "False": False}
_FLAGS = frozenset({"submodules", "keep-git-dir", "fetch-by-commit"})


class GitRefError(ValueError):
    """A git URL whose query says something wrong."""


@dataclass(frozen=True, slots=True)
class GitRef:
    """A repository and what of it is wanted; `remote` is what git is given, `host` and `path` name it for the cache."""

    remote: str
    scheme: str
    host: str
    path: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    fetch_by_commit: bool = False
    mtime: str = ""


def parse_git_ref(text: str) -> GitRef | None:
    """The repository that a source names; None where it is a path or an ordinary URL.

    Raises:
        GitRefError: for a query that is unknown or contradicts itself.
    """
    if text.startswith(("./", "../", "github.com/")):
        return None
    scheme = _SCHEME.match(text)
    if scheme is not None:
        name = scheme[0][:-3].lower()
        if name not in ("http", "https", "ssh", "git"):
            return None
        try:
            url = urlsplit(text)
        except ValueError:
            return None
        if name in ("http", "https") and not unquote(url.path).endswith(".git"):
            return None
        return _with_query(_from_url(url), url.query)
    match = _SCP.match(text)
    if match is None:
        return None
    user, host, path, query, fragment = match.groups(default="")
    ref, subdir = _fragment(fragment)
    return _with_query(GitRef(f"{user}@{host}:{path}", "ssh", host, path, ref, subdir), query)


def parse_context_ref(text: str) -> GitRef | None:
    """The repository that a build context names: as of a source of ADD, and also `github.com/owner/name`.

    Raises:
        GitRefError: as `parse_git_ref` does.
    """
    if not text.startswith("github.com/"):
        return parse_git_ref(text)
    try:
        url = urlsplit(f"https://{text}")
    except ValueError:
        return None
    return _with_query(_from_url(url), url.query)


def _from_url(url: SplitResult) -> GitRef:
    ref, subdir = _fragment(unquote(url.fragment))
    remote = url._replace(query="", fragment="").geturl()
    return GitRef(remote, url.scheme, url.netloc.rpartition("@")[2], unquote(url.path), ref, subdir)


def _fragment(fragment: str) -> tuple[str, str]:
    ref, _, subdir = fragment.partition(":")
    return ref, join("/", subdir).removeprefix("/")


def _with_query(base: GitRef, query: str) -> GitRef:
    if not query:
        return base
    found = {}
    for key, values in parse_qs(query, keep_blank_values=True).items():
        if len(values) > 1:
            raise GitRefError(f"query {key!r} has multiple values")
        if not values[0] and key not in _FLAGS:
            raise GitRefError(f"query {key!r} has no value")
        found[key] = values[0]
    known = {"ref", "tag", "branch", "subdir", "checksum", "commit", "mtime"} | _FLAGS
    for key in found:
        if key not in known:
            raise GitRefError(f"unexpected query {key!r}")
    ref = _agree("ref", base.ref, found.get("ref", ""))
    if found.get("mtime", "checkout") not in ("checkout", "commit"):
        raise GitRefError(f"invalid mtime value {found['mtime']!r}: checkout and commit are known")
    if "tag" in found and "branch" in found:
        raise GitRefError("branch conflicts with tag")
    for key, prefix in (("tag", "refs/tags/"), ("branch", "refs/heads/")):
        if key in found:
            ref = _agree("ref", ref, prefix + found[key].removeprefix(prefix))
    return GitRef(
        base.remote,
        base.scheme,
        base.host,
        base.path,
        ref,
        _agree("subdir", base.subdir, found.get("subdir", "")),
        found.get("commit", found.get("checksum", "")),
        _flag(found, "keep-git-dir"),
        _flag(found, "submodules"),
        bool(_flag(found, "fetch-by-commit")),
        found.get("mtime", ""),
    )


def _agree(name: str, first: str, second: str) -> str:
    if first and second and first != second:
        raise GitRefError(f"{name} conflicts: {first!r} vs {second!r}")
    return first or second


def _flag(found: dict[str, str], name: str) -> bool | None:
    if name not in found:
        return None
    value = found[name]
    if not value:
        return True
    if value not in _BOOLS:
        raise GitRefError(f"invalid {name} value: {value!r}")
    return _BOOLS[value]
