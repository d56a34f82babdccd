"""ADD: as COPY, and also archives that are unpacked, URLs, and git repositories."""

from dataclasses import replace

from ....grammar.dockerfile.tree import Instruction
from ....llb.paths import join
from ...lint.linter import Linter
from ..command import Command, Dispatch
from ..flags import Flags, Kind
from ..remote import is_url
from .copy import FileCopy, copy_files, expand_operands, parse_sources, two_arguments

FLAGS = {
    "chown": Kind.STRING,
    "chmod": Kind.STRING,
    "link": Kind.BOOL,
    "keep-git-dir": Kind.BOOL,
    "checksum": Kind.STRING,
    "unpack": Kind.BOOL,
    "exclude": Kind.STRINGS,
}


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    two_arguments(node)
    flags = Flags(node, FLAGS)
    return replace(
        parse_sources(node, flags),
        is_add=True,
        keep_git_dir=flags.switch("keep-git-dir"),
        checksum=flags.get("checksum"),
        unpack=flags.switch("unpack"),
    )


def apply(command: FileCopy, dispatch: Dispatch) -> None:
    """Add the files."""
    expanded = expand_operands(command, dispatch)
    copy_files(expanded, dispatch.context, dispatch)
    dispatch.stage.context_paths.update(join("/", path) for path in expanded.paths if not is_url(path))
