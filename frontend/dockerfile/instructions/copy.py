"""COPY: files from the build context, from another stage, or written in the Dockerfile."""

import re
from dataclasses import dataclass, replace

from ....grammar.dockerfile.heredoc import chomp
from ....grammar.dockerfile.tree import Instruction
from ....grammar.dockerfile.words import Words
from ....llb import caps
from ....llb.graph import ProgressGroup
from ....llb.ops import Copy, MkFile
from ....llb.paths import clean, join, resolve
from ....llb.state import CopyFrom, Notes, State, chown
from ....oci.digest import InvalidDigest, validate
from ...lint.linter import Linter
from ...lint.rules import copy_ignored_file
from ..command import Command, Dispatch
from ..errors import fail
from ..expansion import command_name, expand, numbered
from ..flags import Flags, Kind
from ..gitref import GitRef, parse_git_ref
from ..heredocs import marker_of
from ..paths import is_absolute, normalize, to_slash, without_drive
from ..remote import file_name, git, http, is_url

FLAGS = {
    "chown": Kind.STRING,
    "from": Kind.STRING,
    "chmod": Kind.STRING,
    "link": Kind.BOOL,
    "exclude": Kind.STRINGS,
    "parents": Kind.BOOL,
}
_SYMBOLIC = re.compile(r"[ugoa]*(?:[-+=](?:[rwxXst]+|[ugo])?)+(?:,[ugoa]*(?:[-+=](?:[rwxXst]+|[ugo])?)+)*\Z")
_WILDCARD = re.compile(r"(?:[^\\*?\[]|\\.)*[*?\[]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Document:
    """A here-document as a source."""

    name: str
    content: str
    expand: bool


@dataclass(frozen=True, slots=True)
class FileCopy(Command):
    """COPY and ADD; None for flags that were not given."""

    paths: tuple[str, ...]
    documents: tuple[Document, ...]
    destination: str
    is_add: bool = False
    origin: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    keep_git_dir: bool | None = None
    checksum: str = ""
    unpack: bool | None = None

    def sources(self) -> list[str]:
        """The stage or image that is copied from."""
        return [self.origin] if self.origin else []


def parse_sources(node: Instruction, flags: Flags) -> FileCopy:
    """Sources and destination of COPY and ADD, with the flags that they share."""
    destination = node.words[-1]
    if marker_of(destination) is not None:
        raise fail(node, f"{node.name} cannot accept a heredoc as a destination")
    bodies = {heredoc.name: heredoc for heredoc in node.heredocs}
    paths, documents = [], []
    for word in node.words[:-1]:
        marker = marker_of(word)
        if marker is None:
            paths.append(word)
            continue
        body = bodies.get(marker.name)
        content = body.content if body is not None else ""
        documents.append(Document(marker.name, chomp(content) if marker.chomp else content, marker.expand))
    return FileCopy(
        node,
        tuple(paths),
        tuple(documents),
        destination,
        chown=flags.get("chown"),
        chmod=flags.get("chmod"),
        link=flags.switch("link") is True,
        exclude=flags.all("exclude"),
    )


def two_arguments(node: Instruction) -> None:
    """Raises DockerfileError for fewer than a source and a destination."""
    if len(node.words) < 2:
        raise fail(node, f"{node.name} requires at least two arguments: the destination could not be determined")


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    two_arguments(node)
    flags = Flags(node, FLAGS)
    return replace(parse_sources(node, flags), origin=flags.get("from"), parents=flags.switch("parents") is True)


def apply(command: FileCopy, dispatch: Dispatch) -> None:
    """Copy the files."""
    source = dispatch.context
    if command.origin:
        origin = dispatch.planned.sources[0]
        if not origin.dispatched:
            raise fail(
                dispatch.node,
                f"cannot copy from stage {command.origin!r}: it needs to be defined before {dispatch.stage.label!r}",
            )
        source = origin.state
    expanded = expand_operands(command, dispatch)
    copy_files(expanded, source, dispatch)
    read = {join("/", path) for path in expanded.paths}
    if command.origin:
        dispatch.planned.sources[0].paths |= read
    else:
        dispatch.stage.context_paths |= read


def expand_operands(command: FileCopy, dispatch: Dispatch) -> FileCopy:
    """The command with its variables filled in."""
    raw = Words(skip_quotes=True)
    owner = expand(dispatch, command.chown)
    mode = expand(dispatch, command.chmod)
    checksum = expand(dispatch, command.checksum)
    paths = tuple(expand(dispatch, path) for path in command.paths)
    destination = expand(dispatch, command.destination)
    documents = tuple(
        replace(d, content=expand(dispatch, d.content, raw)) if d.expand else d for d in command.documents
    )
    return replace(
        command,
        chown=owner,
        chmod=mode,
        checksum=checksum,
        paths=paths,
        destination=destination,
        documents=documents,
    )


def copy_files(command: FileCopy, source: State, dispatch: Dispatch) -> None:
    """Add the copy to the stage; the operands are expanded."""
    stage, node = dispatch.stage, dispatch.node
    platform = stage.platform or dispatch.target_platform
    destination = _destination(command.destination, dispatch)
    mode, mode_str = _mode(command.chmod, dispatch)
    git_refs = {path: parse_git_ref(path) for path in command.paths}
    if command.checksum:
        _check_checksum(command, git_refs, dispatch)
    common = Copy(
        src="",
        dest=resolve(stage.state.cwd, destination, keep_slash=True),
        owner=chown(command.chown),
        mode=mode,
        mode_str=mode_str,
        create_dest_path=True,
        exclude_patterns=command.exclude,
    )
    env = stage.state.env
    name = command_name(dispatch, command.text, Words(dispatch.escape), env)
    numbering = {"multi_platform": dispatch.options.multi_platform, "on_build": dispatch.planned.on_build}
    full_name = numbered(stage, name, platform, env, **numbering)
    notes = Notes(full_name, ignore_cache=stage.ignore_cache, locations=dispatch.locations)
    steps: list[CopyFrom] = []
    keep, checksum = command.keep_git_dir, command.checksum
    for path in command.paths:
        ref = git_refs[path]
        if ref is not None:
            if not command.is_add:
                raise fail(node, "source can't be a git ref for COPY", "use ADD")
            if keep is not None and ref.keep_git_dir is not None and keep != ref.keep_git_dir:
                raise fail(node, "inconsistent keep-git-dir configuration")
            keep = ref.keep_git_dir if ref.keep_git_dir is not None else keep
            if checksum and ref.checksum and checksum != ref.checksum:
                raise fail(node, f"checksum mismatch {checksum!r} != {ref.checksum!r}")
            checksum = ref.checksum or checksum
            state = git(ref, keep is True, checksum, Notes(full_name))
            steps.append(CopyFrom(state, replace(common, src="/")))
        elif is_url(path):
            if not command.is_add:
                raise fail(node, "source can't be a URL for COPY", "use ADD")
            _check_digest(checksum, dispatch)
            described = Notes(full_name, {"com.docker.dockerfile.v1.command": ""})
            copy = replace(common, src=join("/", file_name(path)), attempt_unpack=command.unpack is True)
            steps.append(CopyFrom(http(path, checksum, described), copy))
        else:
            if not command.origin:
                _warn_ignored(path, command, dispatch)
            steps.append(CopyFrom(source, _local_copy(path, command, common, dispatch)))
    for document in command.documents:
        file = without_drive(document.name, dispatch.os)
        made = State(platform=stage.platform).file(
            [MkFile(resolve("/", file), 0o644, document.content.encode())],
            Notes("[internal] preparing inline document"),
        )
        steps.append(CopyFrom(made, replace(common, src=join("/", to_slash(file, dispatch.os)))))
    if command.link and not command.chmod and caps.MERGE_OP in dispatch.options.caps:
        again = {**numbering, "again": True}
        group = ProgressGroup(_group_id(stage, node), numbered(stage, name, platform, env, **again), True)
        copied = State(platform=stage.platform).file(steps, replace(notes, progress_group=group))
        linked = replace(
            notes,
            name=numbered(stage, f"LINK {name}", platform, env, **again),
            progress_group=replace(group, weak=False),
        )
        stage.state = replace(stage.state, output=stage.state.merged_with(copied, notes=linked).output)
    else:
        stage.state = stage.state.file(steps, notes)
    dispatch.commit(_created_by(command), layer=True)


def _warn_ignored(path: str, command: FileCopy, dispatch: Dispatch) -> None:
    """Warn of a source that the ignore file leaves out of the context.

    Nothing is said where it has exceptions: then what is in a folder may be there though the folder is not.
    """
    matcher = dispatch.ignored
    if matcher is None or matcher.exclusions:
        return
    cleaned = clean(path)
    if cleaned in (".", "/") and not any(p.text in ("*", "**", "**/*") for p in matcher.patterns):
        return
    if matcher.matches(cleaned):
        name = "Add" if command.is_add else "Copy"
        dispatch.warn(copy_ignored_file.RULE, copy_ignored_file.message(name, cleaned))


def _group_id(stage: object, node: Instruction) -> str:
    return f"{id(stage):x}-{node.span.start.line}-{node.span.start.column}"


def _created_by(command: FileCopy) -> str:
    parts = ["ADD" if command.is_add else "COPY"]
    parts += ["--parents"] if command.parents else []
    parts += [f"--chown={command.chown}"] if command.chown else []
    parts += [f"--chmod={command.chmod}"] if command.chmod else []
    parts += command.paths
    parts += [f"<<{document.name}" for document in command.documents]
    return " ".join([*parts, command.destination]) + " # buildkit"


def _destination(path: str, dispatch: Dispatch) -> str:
    path = without_drive(path, dispatch.os, keep_slash=True)
    if is_absolute(path, dispatch.os):
        return normalize("/", path, dispatch.os, keep_slash=True)
    path = "./" if path in ("", ".") else path
    return normalize(dispatch.stage.state.cwd, path, dispatch.os, keep_slash=True)


def _mode(chmod: str, dispatch: Dispatch) -> tuple[int, str]:
    if not chmod:
        return -1, ""
    if re.fullmatch(r"[0-7]+", chmod) and int(chmod, 8) < 2**32:
        if int(chmod, 8) > 0o7777:
            raise fail(dispatch.node, f"invalid chmod parameter: {chmod!r}", "an octal mode is between 0 and 07777")
        return int(chmod, 8), ""
    if not _SYMBOLIC.match(chmod):
        raise fail(dispatch.node, f"invalid chmod parameter: {chmod!r}", "write an octal mode, or one such as u+x,go-w")
    return 0, chmod


def _check_checksum(command: FileCopy, git_refs: dict[str, GitRef | None], dispatch: Dispatch) -> None:
    if len(command.paths) != 1:
        raise fail(dispatch.node, "checksum can't be specified for multiple sources")
    path = command.paths[0]
    if git_refs[path] is None and not is_url(path):
        raise fail(dispatch.node, "checksum requires HTTP(S) or Git sources")


def _check_digest(checksum: str, dispatch: Dispatch) -> None:
    if not checksum:
        return
    try:
        validate(checksum)
    except InvalidDigest as error:
        raise fail(dispatch.node, f"invalid checksum: {error}", "write sha256:… with 64 hexadecimal digits") from None


def _local_copy(path: str, command: FileCopy, common: Copy, dispatch: Dispatch) -> Copy:
    os = dispatch.os
    include: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    if command.parents:
        pivot, separator, pattern = path.partition("/./")
        if not separator:
            pivot, pattern = "/", path
        pattern = normalize("/", pattern, os)
        include = (pattern.removeprefix("/"),)
        known = caps.FILE_COPY_REQUIRED_PATHS in dispatch.options.caps
        if known and not _WILDCARD.match(pivot) and not _WILDCARD.match(pattern):
            required = (normalize("/", join(pivot, pattern), os),)
        path = pivot
    return replace(
        common,
        src=join("/", clean(normalize("/", path, os))),
        follow_symlink=True,
        dir_copy_contents=True,
        include_patterns=include,
        required_paths=required,
        attempt_unpack=command.is_add if command.unpack is None else command.unpack,
        allow_wildcard=True,
        allow_empty_wildcard=True,
    )
