"""The runtimes' words in one form."""

from pathlib import Path

import pytest

from brickyard.solver.executor.explain import explain


@pytest.mark.parametrize(
    ("message", "program", "text", "code"),
    [
        ("executable file `foo` not found in $PATH: No such file or directory", "foo", 'exec: "foo": executable file not found in $PATH', 127),
        ('runc run failed: unable to start container process: exec: "foo": executable file not found in $PATH', "foo", 'exec: "foo": executable file not found in $PATH', 127),
        ("execvp foo: No such file or directory", "foo", 'exec: "foo": executable file not found in $PATH', 127),
        ('runc run failed: unable to start container process: exec: "/a/b": stat /a/b: no such file or directory', "/a/b", 'exec: "/a/b": no such file or directory', 127),
        ("executable file `/a/b` not found in $PATH: No such file or directory", "/a/b", 'exec: "/a/b": no such file or directory', 127),
        ("exec container process (missing dynamic library?) `/here`: No such file or directory", "/here", 'exec: "/here": its interpreter or dynamic loader is not in the root file system', 127),
        ("exec /here: no such file or directory", "/here", 'exec: "/here": its interpreter or dynamic loader is not in the root file system', 127),
        ("open executable: Permission denied", "/here", 'exec: "/here": permission denied', 126),
        ('runc run failed: unable to start container process: exec: "/etc": is a directory', "/etc", 'exec: "/etc": permission denied', 126),
        ("exec container process `/here`: Exec format error", "/here", 'exec: "/here": exec format error: it is no program of this machine\'s architecture', 126),
        ("execvp /here: Argument list too long", "/here", 'exec: "/here": execvp /here: Argument list too long', 126),
        ("mount `proc` to `/proc`: Operation not permitted", "sh", "crun cannot start the process: mount `proc` to `/proc`: Operation not permitted", None),
    ],
)  # fmt: skip
def test_messages(tmp_path: Path, message: str, program: str, text: str, code: int | None) -> None:
    (tmp_path / "here").touch()
    error = explain(message, (program,), "crun", tmp_path)
    assert (str(error), error.exit_code) == (text, code)
