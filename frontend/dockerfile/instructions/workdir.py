"""WORKDIR: the working directory, made where it is not there."""

from dataclasses import dataclass

from ....grammar.dockerfile.tree import Instruction
from ....grammar.dockerfile.words import Words
from ....llb.ops import MkDir
from ....llb.paths import resolve
from ....llb.state import Notes, chown
from ...lint.linter import Linter
from ...lint.rules import workdir_relative_path
from ..arity import exactly_one
from ..command import Command, Dispatch, Stage
from ..expansion import command_name, expand, numbered
from ..flags import Flags
from ..paths import is_absolute, to_slash, working_dir


@dataclass(frozen=True, slots=True)
class Workdir(Command):
    """WORKDIR path."""

    path: str


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    path = exactly_one(node)
    Flags(node, {})
    return Workdir(node, path)


def change(stage: Stage, path: str, os: str) -> str:
    """Enter a directory; returns it with slashes. Raises ValueError for a Windows path that can't be one."""
    stage.image.config.working_dir = working_dir(stage.image.config.working_dir, path, os)
    slashed = to_slash(stage.image.config.working_dir, os)
    stage.state = stage.state.with_dir(slashed)
    return slashed


def apply(command: Workdir, dispatch: Dispatch) -> None:
    """Enter the directory, and make it unless it is the root."""
    stage = dispatch.stage
    path = expand(dispatch, command.path)
    if not stage.workdir_set and not is_absolute(path, dispatch.os):
        dispatch.warn(workdir_relative_path.RULE, workdir_relative_path.message(path))
    stage.workdir_set = True
    cwd = change(stage, path, dispatch.os)
    if cwd != "/":
        env = stage.state.env
        name = command_name(dispatch, command.text, Words(dispatch.escape), env)
        name = numbered(
            stage,
            name,
            stage.platform,
            env,
            multi_platform=dispatch.options.multi_platform,
            on_build=dispatch.planned.on_build,
        )
        step = MkDir(
            resolve(cwd, cwd),
            0o755,
            make_parents=True,
            owner=chown(stage.image.config.user),
            timestamp=-1 if dispatch.epoch is None else dispatch.epoch * 10**9,
        )
        stage.state = stage.state.file([step], Notes(name, locations=dispatch.locations))
    dispatch.commit(f"WORKDIR {cwd}", layer=cwd != "/")
