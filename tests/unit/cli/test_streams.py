"""The program where streams are closed, or the locale is not UTF-8."""

import os
import subprocess
import sys

CODE = "import sys; from brickyard.__main__ import main; sys.exit(main())"


def test_closed_streams() -> None:
    closed = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -c '{CODE}' version <&- >&- 2>&-"], timeout=60, check=False
    )
    assert closed.returncode == 0


def test_a_locale_without_utf_8(tmp_path: os.PathLike[str]) -> None:
    dockerfile = os.path.join(tmp_path, "Dü")
    with open(dockerfile, "w", encoding="utf-8") as file:
        file.write("FROM scratch\nFORM ü\n")
    environ = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "brickyard", "lint", dockerfile],
        capture_output=True,
        env=environ,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"{dockerfile}:2: unknown instruction: FORM" in done.stderr.decode()
    assert "FORM ü" in done.stderr.decode()
