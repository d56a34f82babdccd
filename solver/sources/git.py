"""`git://HOST/PATH#REF:SUBDIR`: the files of a git repository, fetched with the git program.

Each remote has a bare repository in the state folder, which keeps what was fetched of it; of a branch or tag only its
tip is fetched, of a commit only itself where the server allows it. Git reads no configuration but ours, runs no hooks
and filters, asks nobody, and speaks http(s), ssh and git only. Credentials are handed over in its environment, never on
its command line, and are blotted out of what it prints.
"""

import base64
import hashlib
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from urllib.parse import urlsplit

from ...llb.ops import SourceOp
from ...llb.paths import join
from ...oci.platform import Platform
from ...wire.pb import gateway_pb2, ops_pb2
from ..base import Context, Result, SolveError
from ..layers import exclusively
from ..ssh_agent import agent_socket
from .http import header_value
from .memo import Memo

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_HEX = re.compile(r"[0-9a-fA-F]+\Z")
_SCP = re.compile(r"(?:[\w.-]+@)?[\w.-]+:(?!//|:)")
_SCHEMES = ("http", "https", "ssh", "git")
_UNSUPPORTED = (
    "git.bundle", "git.checkoutbundle", "git.sig.pubkey", "git.sig.rejectexpired", "git.sig.requiresignedtag",
    "git.sig.ignoresignedtag",
)  # fmt: skip
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
_GITHUB = ("https://github.com/", "https://www.github.com/")


@dataclass(frozen=True, slots=True)
class Repository:
    """What an op asks for; `ref` is as it was written, empty for the default branch."""

    remote: str
    ref: str
    subdir: str
    keep_git_dir: bool = False
    submodules: bool = True
    checksum: str = ""
    commit_time: bool = False
    fetch_by_commit: bool = False
    header_secret: str = ""
    token_secret: str = ""
    ssh_id: str = ""
    known_hosts: str = ""

    @property
    def shown(self) -> str:
        """The remote without a password."""
        return re.sub(r"//[^/@]*@", "//", self.remote)


@dataclass(frozen=True, slots=True)
class Found:
    """What a ref means: its full name (the hash itself for a hash), its hash, and the commit's of an annotated tag."""

    ref: str
    sha: str
    commit: str = ""


_memo: Memo[Found] = Memo("git")


def parse(identifier: str, attrs: Mapping[str, str]) -> Repository:
    """Read an op's identifier and attributes. Raises SolveError."""
    for key in _UNSUPPORTED:
        if attrs.get(key) not in (None, "", "false"):
            raise SolveError(f"{identifier}: the attribute {key} is not supported")
    place, _, fragment = identifier.removeprefix("git://").partition("#")
    ref, _, subdir = fragment.partition(":")
    remote = attrs.get("git.fullurl") or place
    if "://" not in remote and not _SCP.match(remote):
        remote = f"https://{remote}"
    if "://" in remote and urlsplit(remote).scheme.lower() not in _SCHEMES:
        raise SolveError(f"{identifier}: git remotes are reached by {', '.join(_SCHEMES)}, not by {remote!r}")
    if remote.startswith("-") or ref.startswith("-") or any(ord(char) < 33 for char in remote + ref):
        raise SolveError(f"{identifier}: not a git remote and ref")
    checksum = attrs.get("git.checksum", "").lower()
    if checksum and not _HEX.match(checksum):
        raise SolveError(f"{identifier}: the checksum {checksum!r} is no commit hash")
    found = Repository(
        remote,
        ref,
        join("/", subdir).strip("/"),
        attrs.get("git.keepgitdir") == "true",
        attrs.get("git.skipsubmodules") != "true",
        checksum,
        attrs.get("git.mtime") == "commit",
        attrs.get("git.fetchbycommit") == "true",
        attrs.get("git.authheadersecret", ""),
        attrs.get("git.authtokensecret", ""),
        attrs.get("git.mountsshsock", ""),
        attrs.get("git.knownsshhosts", ""),
    )
    if found.fetch_by_commit and not _COMMIT.match(ref):
        if not _COMMIT.match(checksum):
            raise SolveError(f"{identifier}: fetching by commit needs a whole commit hash as checksum or ref")
        if ref and not ref.startswith("refs/"):
            return replace(found, ref=f"refs/heads/{ref}")
    return found


def cache_key(op: SourceOp, platform: Platform | None, context: Context) -> str:
    """The commit, and what of it is taken."""
    repository = parse(op.identifier, op.attrs)
    found = resolve(repository, context)
    key = found.sha if repository.keep_git_dir or not found.commit else found.commit
    if repository.keep_git_dir:
        key += f".git#{found.ref}"
    if repository.subdir:
        key += f":{repository.subdir}"
    if not repository.submodules:
        key += "(skip-submodules)"
    if repository.commit_time:
        key += "(mtime=commit)"
    return f"git:{key}"


def snapshot(op: SourceOp, platform: Platform | None, context: Context) -> Result:
    """The files of the commit."""
    repository = parse(op.identifier, op.attrs)
    found = resolve(repository, context)
    with _fetched(repository, found, context) as git:
        return Result(_checked_out(git, repository, found, context))


def resolve_meta(
    source: ops_pb2.SourceOp, return_object: bool, context: Context, response: gateway_pb2.ResolveSourceGitResponse
) -> None:
    """Fill in what a ref means, with the raw commit and tag where they are asked for. Raises SolveError."""
    repository = parse(source.identifier, dict(source.attrs))
    found = resolve(repository, context)
    response.Ref, response.Checksum, response.CommitChecksum = found.ref, found.sha, found.commit
    if not return_object:
        return
    with _fetched(repository, found, context) as git:
        if git.run("cat-file", "-t", found.sha).strip() == b"tag":
            response.CommitChecksum = git.run("rev-parse", f"{found.sha}^{{commit}}").decode().strip()
            response.TagObject = git.run("cat-file", "tag", found.sha)
        else:
            response.CommitChecksum = ""
        response.CommitObject = git.run("cat-file", "commit", response.CommitChecksum or found.sha)


def resolve(repository: Repository, context: Context) -> Found:
    """What the ref means now; asked once for each client's session. Raises SolveError."""
    ref, checksum = repository.ref, repository.checksum
    if _COMMIT.match(ref):
        if checksum and not ref.startswith(checksum):
            raise SolveError(f"{repository.shown}: expected checksum to match {checksum}, got {ref}")
        return Found(ref, ref)
    if repository.fetch_by_commit:
        return Found(ref or checksum, checksum)
    found = _memo.get(context, f"{repository.remote}#{ref}", lambda: _asked(repository, context))
    names = [found.sha, *([found.commit] if found.commit else [])]
    if checksum and not any(name.startswith(checksum) for name in names):
        raise SolveError(f"{repository.shown}: expected checksum to match {checksum}, got {' or '.join(names)}")
    return found


def _asked(repository: Repository, context: Context) -> Found:
    with _Git.prepared(repository, context) as plain:
        git = plain.reaching(repository)
        if not repository.ref:
            lines = git.run("ls-remote", "--symref", "origin", "HEAD").decode(errors="replace")
            head = re.search(r"^ref: (refs/heads/\S+)\tHEAD$", lines, re.MULTILINE)
            sha = re.search(r"^([0-9a-f]{40,64})\tHEAD$", lines, re.MULTILINE)
            if head is None or sha is None:
                raise SolveError(f"{repository.shown}: the repository has no default branch")
            return Found(head[1], sha[1])
        ref = repository.ref
        lines = git.run("ls-remote", "origin", ref, f"{ref}^{{}}").decode(errors="replace")
    listed = {name: sha for sha, _, name in (line.partition("\t") for line in lines.splitlines())}
    branch, tag = f"refs/heads/{ref.removeprefix('refs/heads/')}", f"refs/tags/{ref.removeprefix('refs/tags/')}"
    # As git does: the ref as it stands, then a branch, then a tag.
    for name in (f"refs/{ref.removeprefix('refs/')}", branch, tag):
        if _COMMIT.match(listed.get(name, "")):
            return Found(name, listed[name], listed.get(f"{name}^{{}}", "") if name == tag else "")
    raise SolveError(f"{repository.shown}: the repository does not contain the ref {ref}")


# The git program


@dataclass(frozen=True, slots=True)
class _Git:
    """How git is run: its environment and configuration, and what must not be shown of its output."""

    context: Context
    environment: Mapping[str, str]
    settings: Mapping[str, str]
    secrets: tuple[str, ...]
    place: tuple[str, ...] = ()
    folder: Path = Path("/")

    @staticmethod
    @contextmanager
    def prepared(repository: Repository, context: Context) -> Iterator["_Git"]:
        """Git with the credentials for a remote, and the agent's socket, for the time of the block."""
        with ExitStack() as stack:
            secrets: tuple[str, ...] = ()
            settings = {
                "core.hooksPath": os.devnull,
                "core.fsmonitor": "false",
                "core.askPass": "",
                "credential.helper": "",
                "init.defaultBranch": "master",
                "init.templateDir": "",
                "gc.auto": "0",
                "maintenance.auto": "false",
                "advice.detachedHead": "false",
                "protocol.version": "2",
                "http.lowSpeedLimit": "1",
                "http.lowSpeedTime": "60",
            }
            header = _authorization(repository, context)
            if header is not None:
                secrets = (header, header.rpartition(" ")[2])
                settings[f"http.{_scope(repository.remote)}.extraHeader"] = f"Authorization: {header}"
            password = urlsplit(repository.remote).password if "://" in repository.remote else None
            if password:
                secrets += (password,)
            ssh = ["ssh", "-F", os.devnull, "-o", "BatchMode=yes"]
            if repository.known_hosts:
                folder = stack.enter_context(TemporaryDirectory(prefix="brickyard-git-"))
                hosts = Path(folder) / "known_hosts"
                hosts.write_text(repository.known_hosts)
                ssh += ["-o", f"UserKnownHostsFile={hosts}", "-o", "GlobalKnownHostsFile=/dev/null"]
            else:
                ssh += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
            environment = {
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": os.devnull,
                "LC_ALL": "C",
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_CONFIG_GLOBAL": os.devnull,
                "GIT_ATTR_NOSYSTEM": "1",
                "GIT_ALLOW_PROTOCOL": ":".join(_SCHEMES),
                "GIT_SSH_COMMAND": " ".join(ssh),
                "GIT_SSH_VARIANT": "ssh",
            }
            for name in (*_PROXIES, *map(str.upper, _PROXIES), "SSL_CERT_FILE", "SSL_CERT_DIR"):
                if name in os.environ:
                    environment[name] = os.environ[name]
            if repository.ssh_id:
                socket = stack.enter_context(agent_socket(context.session, repository.ssh_id))
                environment["SSH_AUTH_SOCK"] = str(socket)
            yield _Git(context, environment, settings, secrets)

    def reaching(self, repository: Repository) -> "_Git":
        """The same with the remote as `origin`; a password in it stands in no file and on no command line."""
        return replace(self, settings={**self.settings, "remote.origin.url": repository.remote})

    def at(self, git_dir: Path, work_tree: Path | None = None, **environment: str) -> "_Git":
        """The same for a repository, and a folder that files are checked out to."""
        place = (f"--git-dir={git_dir}", *((f"--work-tree={work_tree}",) if work_tree else ()))
        return replace(self, place=place, folder=work_tree or git_dir, environment={**self.environment, **environment})

    def succeeds(self, *words: str) -> bool:
        """Whether a command ends well; what it says does not matter."""
        try:
            self.run(*words, quiet=True)
        except SolveError:
            return False
        return True

    def run(self, *words: str, quiet: bool = False) -> bytes:
        """The output of a git command.

        Raises:
            SolveError: where it fails, with what it said.
            Cancelled: where the build was stopped; nothing of it runs on.
        """
        self.context.check()
        settings = {"GIT_CONFIG_COUNT": str(len(self.settings))}
        for number, (key, value) in enumerate(self.settings.items()):
            settings |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        try:
            process = subprocess.Popen(
                ["git", *self.place, *words],
                cwd=self.folder,
                env={**self.environment, **settings},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                umask=0o022,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise SolveError("git is not installed: sources of git repositories need it") from None
        while True:
            try:
                output, said = process.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if self.context.cancel.is_set():
                    _stop(process)
                    self.context.check()
        text = self._clean(said.decode(errors="replace"))
        if text and not quiet:
            self.context.log(2, text.encode())
        if process.returncode:
            raise SolveError(f"git {words[0]} failed: {_reasons(text)}")
        return output

    def _clean(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "xxxxx")
        return re.sub(r"//[^/@\s]*@", "//", text)


def _reasons(text: str) -> str:
    """The lines of git's output that say what went wrong, in one."""
    found: list[str] = []
    goes_on = False
    for line in map(str.strip, text.splitlines()):
        if goes_on or line.startswith(("fatal:", "error:", "remote:")):
            found.append(line)
            goes_on = line.endswith(":")
    return " ".join(found) or text.strip()


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End a command with all that it started."""
    import signal

    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.communicate(timeout=2)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    process.wait()


def _authorization(repository: Repository, context: Context) -> str | None:
    """The value of the Authorization header for a remote, from the first secret that the client has."""
    if "://" not in repository.remote or urlsplit(repository.remote).scheme not in ("http", "https"):
        return None
    host = urlsplit(repository.remote).netloc.rpartition("@")[2]
    kinds = [(repository.header_secret, False), (repository.token_secret, True)]
    for suffix in (f".{host}", ""):
        for name, token in kinds:
            if not name:
                continue
            value = context.session.secret(name + suffix)
            if value is not None:
                text = header_value(value, repository.shown)
                return "basic " + base64.b64encode(f"x-access-token:{text}".encode()).decode() if token else text
    return None


def _scope(remote: str) -> str:
    """The addresses that the credentials are for: the remote, or all of GitHub, where submodules are most often."""
    return next((prefix for prefix in _GITHUB if remote.startswith(prefix)), remote)


# Fetching


@contextmanager
def _fetched(repository: Repository, found: Found, context: Context) -> Iterator[_Git]:
    """Git at the remote's bare repository, which holds what was found, for the time of the block."""
    name = hashlib.sha256(f"{repository.remote} {len(found.sha)}".encode()).hexdigest()
    folder = context.root / "git" / name
    with exclusively(context, f"git {name}"), _Git.prepared(repository, context) as plain:
        git = plain.at(folder)
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            git.run("init", "--bare", "--quiet", f"--object-format={_kind(found)}")
            (folder / "whole").touch()
        # What a process left that was killed: nobody else works here.
        for lock in folder.glob("*.lock"):
            lock.unlink()
        for left in folder.glob("checkout-*"):
            shutil.rmtree(left, ignore_errors=True)
        if not _holds(git, found):
            with context.step(f"fetching {repository.shown}"):
                _fetch(git.reaching(repository), repository, found, folder)
            git.run("update-ref", f"refs/keep/{found.sha}", found.sha)
        if repository.checksum and _COMMIT.match(found.ref):
            peeled = git.run("rev-parse", f"{found.sha}^{{}}").decode().strip()
            if not found.sha.startswith(repository.checksum) and not peeled.startswith(repository.checksum):
                raise SolveError(f"{repository.shown}: expected checksum to match {repository.checksum}, got {peeled}")
        yield git


def _holds(git: _Git, found: Found) -> bool:
    return git.succeeds("rev-parse", "--verify", "--quiet", f"refs/keep/{found.sha}^{{commit}}")


def _fetch(git: _Git, repository: Repository, found: Found, folder: Path) -> None:
    """Fetch what was found: by its name, by its hash, or else everything."""
    wanted = f"{found.sha}^{{commit}}"
    shallow = ("fetch", "--depth=1", "--no-tags", "--no-write-fetch-head", "origin")
    tries: list[Sequence[str]] = []
    if not repository.fetch_by_commit and not _COMMIT.match(found.ref):
        tries.append((*shallow, f"+{found.ref}:refs/latest"))
    tries.append((*shallow, f"+{found.sha}:refs/latest"))
    for words in tries:
        try:
            git.run(*words)
        except SolveError as error:
            if not _may_be_fetched_otherwise(str(error)):
                raise SolveError(f"failed to fetch {repository.shown}: {error}") from None
            continue
        if git.succeeds("cat-file", "-e", wanted):
            return
    unshallow = ["--unshallow"] if (folder / "shallow").exists() else []
    everything = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/remote-tags/*")
    try:
        git.run("fetch", "--no-tags", "--no-write-fetch-head", *unshallow, "origin", *everything)
    except SolveError as error:
        raise SolveError(f"failed to fetch {repository.shown}: {error}") from None
    if not git.succeeds("cat-file", "-e", wanted):
        raise SolveError(f"{repository.shown}: the repository has no commit {found.sha}")


def _may_be_fetched_otherwise(text: str) -> bool:
    """Whether a server only refused the way in which it was asked."""
    signs = ("unadvertised", "not our ref", "shallow", "depth", "couldn't find remote ref", "no such remote ref")
    return any(sign in text.lower() for sign in signs)


# Checking out


def _checked_out(git: _Git, repository: Repository, found: Found, context: Context) -> str:
    name = context.snapshots.prepare(None)
    try:
        with context.snapshots.mounted(name, readonly=False) as root:
            if repository.subdir:
                whole = Path(mkdtemp(prefix=".checkout-", dir=root))
                _write_files(git, repository, found, whole)
                _move_up(whole, repository, root)
            else:
                _write_files(git, repository, found, root)
            if repository.commit_time:
                text = git.run("log", "-1", "--format=%ct", f"{found.sha}^{{commit}}")
                _set_times(root, int(text))
        context.snapshots.commit(name)
    except BaseException:
        context.snapshots.remove(name)
        raise
    said = f"git snapshot for {repository.shown}#{repository.ref}"
    context.cache.set_value("description", name, said.encode())
    return name


def _write_files(git: _Git, repository: Repository, found: Found, folder: Path) -> None:
    bare = git.folder
    if repository.keep_git_dir and not repository.subdir:
        own = git.at(folder / ".git", folder)
        _clone(own, bare, repository, found)
        _write_submodules(own, repository, folder)
        return
    with TemporaryDirectory(prefix="checkout-", dir=bare) as place:
        # A repository for this checkout alone, with the objects of the shared one.
        own = git.at(Path(place) / "git", folder)
        own.run("init", "--quiet", f"--object-format={_kind(found)}")
        (Path(place) / "git/objects/info").mkdir(exist_ok=True)
        (Path(place) / "git/objects/info/alternates").write_text(f"{bare}/objects\n")
        if (bare / "shallow").exists():
            shutil.copy(bare / "shallow", Path(place) / "git/shallow")
        with (Path(place) / "git/config").open("a") as config:
            config.write(f'[remote "origin"]\n\turl = "{repository.remote}"\n')
        own.run("read-tree", "--reset", "-u", f"{found.sha}^{{tree}}")
        _write_submodules(own, repository, folder)
    for path in folder.rglob(".git"):
        # Where a submodule's repository was, which is gone. Git itself tracks no file of that name.
        path.unlink()


def _write_submodules(git: _Git, repository: Repository, folder: Path) -> None:
    found = folder / ".gitmodules"
    if repository.submodules and found.is_file() and not found.is_symlink():
        git.run("submodule", "update", "--init", "--recursive", "--depth=1")


def _kind(found: Found) -> str:
    return "sha256" if len(found.sha) == 64 else "sha1"


def _clone(git: _Git, bare: Path, repository: Repository, found: Found) -> None:
    """A repository of its own in the work tree, with the one commit, as a shallow clone has it."""
    git.run("init", "--quiet", f"--object-format={_kind(found)}")
    kept = f"refs/keep/{found.sha}"
    target = f"{kept}:{found.ref}" if not _COMMIT.match(found.ref) else kept
    local = replace(git, environment={**git.environment, "GIT_ALLOW_PROTOCOL": "file"})
    local.run("fetch", "--quiet", "-u", "--depth=1", "--no-tags", "--", f"file://{bare}", target)
    git.run("remote", "add", "origin", repository.shown)
    git.run("checkout", "--quiet", "--detach", "FETCH_HEAD")
    git.run("reflog", "expire", "--all", "--expire=now")
    (git.folder / ".git/FETCH_HEAD").unlink(missing_ok=True)


def _move_up(whole: Path, repository: Repository, root: Path) -> None:
    """Make what is in the subfolder the whole; no part of its path may be a link."""
    folder = whole
    for part in repository.subdir.split("/"):
        folder = folder / part
        try:
            mode = folder.lstat().st_mode
        except FileNotFoundError:
            raise SolveError(f"{repository.shown}: the repository has no folder {repository.subdir!r}") from None
        if not stat.S_ISDIR(mode) or part == "..":
            raise SolveError(f"{repository.shown}: {repository.subdir!r} is no folder of the repository")
    for entry in list(folder.iterdir()):
        entry.rename(root / entry.name)
    shutil.rmtree(whole)


def _set_times(root: Path, seconds: int) -> None:
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            os.utime(os.path.join(folder, name), (seconds, seconds), follow_symlinks=False)
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                os.utime(path, (seconds, seconds), follow_symlinks=False)
        os.utime(folder, (seconds, seconds))
