"""Flags in all the forms that docker reads."""

import pytest

from brickyard.cli.flags import Command, Flag, UsageError, parse, usage

COMMAND = Command(
    "try",
    "Try things",
    (
        Flag("file", "A file", short="f", metavar="path"),
        Flag("tag", "A tag", "list", "t"),
        Flag("quiet", "Say less", "switch", "q"),
        Flag("all", "Everything", "switch", "a"),
        Flag("sbom", "With or without value", implied="true"),
    ),
    arguments="DIR",
    required=1,
    most=1,
)


@pytest.mark.parametrize(
    "words",
    [
        ["--file", "x", "--tag=a", "-t", "b", "-tc", "dir"],
        ["dir", "-f", "x", "--tag", "a", "-t=b", "-t", "c"],
        ["-fx", "-ta", "dir", "-tb", "-tc"],
        ["--file", "y", "--file", "x", "-t", "a", "-t", "b", "-t", "c", "--", "dir"],
    ],
)
def test_values(words: list[str]) -> None:
    parsed = parse(COMMAND, words)
    assert parsed.arguments == ["dir"]
    assert parsed.text("file") == "x"
    assert parsed.texts("tag") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("words", "quiet", "everything"),
    [
        (["-qa"], True, True),
        (["--quiet"], True, False),
        (["--quiet=false", "--all=1"], False, True),
        (["-q=false"], False, False),
        (["-aq=true"], True, True),
    ],
)
def test_switches(words: list[str], quiet: bool, everything: bool) -> None:
    parsed = parse(COMMAND, [*words, "dir"])
    assert (parsed.on("quiet"), parsed.on("all")) == (quiet, everything)


def test_a_dash_is_an_argument_and_an_implied_value_takes_no_word() -> None:
    parsed = parse(COMMAND, ["--sbom", "-"])
    assert parsed.arguments == ["-"]
    assert parsed.text("sbom") == "true"
    assert parse(COMMAND, ["--sbom=false", "-"]).text("sbom") == "false"
    assert not parse(COMMAND, ["-"]).given("sbom")


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["--flie", "x", "dir"], "unknown flag: --flie", "did you mean --file?"),
        (["--zzzzz", "dir"], "unknown flag: --zzzzz", ""),
        (["-x", "dir"], "unknown flag: -x", ""),
        (["-xy", "dir"], "unknown flag: -x in -xy", ""),
        (["dir", "--file"], "flag needs a value: --file", ""),
        (["dir", "-f"], "flag needs a value: -f", ""),
        ([], "brickyard try needs DIR", ""),
        (["a", "b"], "brickyard try: unexpected argument 'b'", ""),
        (["--quiet=maybe", "dir"], "--quiet=maybe: write true or false", ""),
    ],
)
def test_slips(words: list[str], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(COMMAND, words)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_help_is_read_without_arguments() -> None:
    assert parse(COMMAND, ["-h"]).on("help")
    text = usage(COMMAND)
    assert text.startswith("Usage:  brickyard try [OPTIONS] DIR\n\nTry things\n")
    assert "  -f, --file path       A file\n" in text
    assert "      --sbom[=string]   With or without value\n" in text
