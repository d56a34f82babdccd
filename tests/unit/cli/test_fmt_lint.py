"""`brickyard fmt` and `brickyard lint`."""

import json
from pathlib import Path

import pytest

from brickyard.cli.main import run

TEXT = "from a as b\nRUN x \\\n\n  y\nENV k v w\nFROM b\n"


@pytest.fixture
def dockerfile(tmp_path: Path) -> Path:
    path = tmp_path / "Dockerfile"
    path.write_text(TEXT)
    path.chmod(0o640)
    return path


def test_fmt_writes_in_place(dockerfile: Path) -> None:
    assert run(["fmt", str(dockerfile.parent)]) == 0
    assert dockerfile.read_text() == "FROM a AS b\nRUN x \\\n  y\nENV k v w\n\nFROM b\n"
    assert dockerfile.stat().st_mode & 0o777 == 0o640
    assert run(["fmt", "--check", str(dockerfile)]) == 0


def test_fmt_check_and_diff_write_nothing(dockerfile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fmt", "--check", str(dockerfile)]) == 1
    assert run(["fmt", "--diff", str(dockerfile)]) == 1
    assert "+FROM a AS b\n" in capsys.readouterr().out
    assert dockerfile.read_text() == TEXT


def test_fmt_of_what_is_no_dockerfile(dockerfile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dockerfile.write_text("FROM a\nENV k\n")
    assert run(["fmt", str(dockerfile)]) == 1
    assert f"{dockerfile}:2: ENV must have two arguments" in capsys.readouterr().err
    assert run(["fmt", str(dockerfile.parent / "none")]) == 1


def test_lint_finds_and_repairs(dockerfile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lint", str(dockerfile)]) == 1
    assert f"{dockerfile}:5: LegacyKeyValueFormat: " in capsys.readouterr().out
    assert run(["lint", "--fix", str(dockerfile)]) == 0
    assert dockerfile.read_text() == 'FROM a AS b\nRUN x \\\n  y\nENV k="v w"\nFROM b\n'


def test_lint_forms(dockerfile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lint", "--format", "json", str(dockerfile)]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [(row["rule"], row["start"]) for row in rows] == [
        ("ConsistentInstructionCasing", 1),
        ("NoEmptyContinuation", 4),
        ("LegacyKeyValueFormat", 5),
    ]
    assert run(["lint", "--format", "sarif", str(dockerfile)]) == 1
    log = json.loads(capsys.readouterr().out)
    assert log["version"] == "2.1.0"
    first = log["runs"][0]["results"][0]
    assert first["ruleId"] == "ConsistentInstructionCasing"
    assert first["locations"][0]["physicalLocation"]["region"] == {"startLine": 1, "endLine": 1}
    assert run(["lint", "--format", "xml", str(dockerfile)]) == 2


@pytest.mark.parametrize("command", ["fmt", "lint", "fmt --check", "lint --fix"])
def test_templates_are_left_alone(dockerfile: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    template = "# brickyard: template\nfrom a\n{% if x %}run y{% endif %}\n"
    dockerfile.write_text(template)
    assert run([*command.split(), str(dockerfile)]) == 0
    assert dockerfile.read_text() == template
    assert capsys.readouterr().err == (
        f"skipped {dockerfile}: a template; `brickyard build --check` checks what it makes\n"
    )
