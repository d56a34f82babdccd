"""The runtimes' words in one form."""

from pathlib import Path

import pytest

from brickyard.solver.executor.explain import explain

NOT_IN_PATH = "executable file not found in $PATH"
NOT_THERE = "no such file or directory"
NO_LOADER = "its interpreter or dynamic loader is not in the root file system"
FORMAT = "exec format error: it is no program of this machine's architecture"
RUNC = "runc run failed: unable to start container process: "


@pytest.mark.parametrize(
    ("message", "program", "text", "code"),
    [
        ("executable file `foo` not found in $PATH: No such file or directory", "foo", NOT_IN_PATH, 127),
        (f'{RUNC}exec: "foo": executable file not found in $PATH', "foo", NOT_IN_PATH, 127),
        ("execvp foo: No such file or directory", "foo", NOT_IN_PATH, 127),
        (f'{RUNC}exec: "/a/b": stat /a/b: no such file or directory', "/a/b", NOT_THERE, 127),
        ("executable file `/a/b` not found in $PATH: No such file or directory", "/a/b", NOT_THERE, 127),
        ("exec container process (missing …?) `/here`: No such file or directory", "/here", NO_LOADER, 127),
        ("exec /here: no such file or directory", "/here", NO_LOADER, 127),
        ("open executable: Permission denied", "/here", "permission denied", 126),
        (f'{RUNC}exec: "/etc": is a directory', "/etc", "permission denied", 126),
        ("exec container process `/here`: Exec format error", "/here", FORMAT, 126),
        ("execvp /here: Argument list too long", "/here", "execvp /here: Argument list too long", 126),
    ],
)
def test_messages_about_the_program(tmp_path: Path, message: str, program: str, text: str, code: int) -> None:
    (tmp_path / "here").touch()
    error = explain(message, (program,), "crun", tmp_path)
    assert (str(error), error.exit_code) == (f'exec: "{program}": {text}', code)


def test_other_messages(tmp_path: Path) -> None:
    error = explain("mount `proc` to `/proc`: Operation not permitted\n", ("sh",), "crun", tmp_path)
    assert str(error) == "crun cannot start the process: mount `proc` to `/proc`: Operation not permitted"
    assert error.exit_code is None
