"""Every build check has a file that it finds something in, told with its lines, and can be skipped."""

import importlib
import pkgutil

import pytest

from brickyard.frontend.lint import rules
from brickyard.frontend.lint.rule import Rule

NAMES = sorted(module.name for module in pkgutil.iter_modules(rules.__path__))
FOUND = {
    "consistent_instruction_casing": ("FROM scratch\nenv A=b\nLABEL a=b\n", "Command 'env' should match", [2]),
    "copy_ignored_file": ("FROM scratch\nADD ignored.txt /\n", 'Attempting to Add file "ignored.txt"', [2]),
    "duplicate_stage_name": ("FROM scratch AS a\nFROM scratch AS a\n", 'Duplicate stage name "a"', [2]),
    "expose_invalid_format": ("FROM scratch\nEXPOSE 127.0.0.1:80:80\n", "found '127.0.0.1:80:80'", [2]),
    "expose_proto_casing": ("FROM scratch\nEXPOSE 80/TcP\n", "Defined protocol '80/TcP'", [2]),
    "from_as_casing": ("FROM scratch as a\n", "'as' and 'FROM' keywords' casing do not match", [1]),
    "from_platform_flag_const_disallowed": (
        "FROM --platform=linux/arm64 scratch\n", 'should not use constant value "linux/arm64"', [1],
    ),
    "invalid_base_image_platform": (
        "FROM --platform=linux/$X alpine\n", 'pulled with platform "linux/amd64", expected "linux/s390x"', [1],
    ),
    "invalid_default_arg_in_from": ("ARG X\nFROM alpine:$X\n", "ARG alpine:$X results in empty or invalid", [2]),
    "invalid_definition_description": (
        "# check=experimental=all\n# Something\nFROM scratch AS a\n", "`# a <description>`", [3],
    ),
    "json_args_recommended": ("FROM scratch\nENTRYPOINT a\\\n b\n", "recommended for ENTRYPOINT", [2, 3]),
    "legacy_key_value_format": ("FROM scratch\nLABEL a b\n", '"LABEL key=value" should be used', [2]),
    "maintainer_deprecated": ("FROM scratch\nMAINTAINER a\n", "deprecated in favor of using label", [2]),
    "multiple_instructions_disallowed": ('FROM scratch\nCMD ["a"]\nCMD ["b"]\n', "Multiple CMD instructions", [2]),
    "no_empty_continuation": ("FROM scratch\nENV A=b \\\n\n C=d\n", "Empty continuation line", [4]),
    "redundant_target_platform": ("FROM --platform=$TARGETPLATFORM scratch\n", "predefined $TARGETPLATFORM", [1]),
    "reserved_stage_name": ("FROM scratch AS context\n", 'reserved stage "context"', [1]),
    "secrets_used_in_arg_or_env": ("FROM scratch\nENV API_KEY=a\n", '(ENV "API_KEY")', [2]),
    "stage_name_casing": ("FROM scratch AS One\n", "Stage name 'One' should be lowercase", [1]),
    "undefined_arg_in_from": (
        "ARG VERSION=1\nFROM alpine:$VERSON\n", "'VERSON' is not declared (did you mean VERSION?)", [2],
    ),
    "undefined_var": ("FROM alpine\nENV A=$PAHT\n", "'$PAHT' (did you mean $PATH?)", [2]),
    "workdir_relative_path": ("FROM alpine\nWORKDIR a\n", 'Relative workdir "a" can have', [2]),
}  # fmt: skip


def rule_of(name: str) -> Rule:
    found = importlib.import_module(f"brickyard.frontend.lint.rules.{name}").RULE
    assert isinstance(found, Rule)
    return found


def test_every_rule_has_a_case() -> None:
    assert sorted(FOUND) == NAMES
    assert len({rule_of(name).name for name in NAMES}) == len(NAMES)


def warnings(frontend, text: str) -> dict[bytes, tuple[str, list[int]]]:
    gateway = frontend.gateway(text, files={".dockerignore": "ignored.txt\n"})
    opts = {"build-arg:X": "s390x"} if "$X alpine" in text else {}
    frontend.build(gateway, **opts)
    return {
        warning.short.partition(b":")[0]: (warning.short.decode(), [place.start.line for place in warning.ranges])
        for warning in gateway.warnings
    }


@pytest.mark.parametrize("name", NAMES)
def test_what_is_found(frontend, name: str) -> None:
    text, message, lines = FOUND[name]
    if name == "invalid_base_image_platform":
        text = "ARG X\n" + text
        lines = [2]
    if name in ("invalid_default_arg_in_from", "undefined_arg_in_from"):
        # Without a value the build goes no farther than the warning.
        gateway = frontend.gateway(text)
        frontend.build(gateway, requestid="frontend.lint")
        answer = frontend.build(gateway, requestid="frontend.lint").metadata["result.json"].decode()
        assert f'"ruleName": "{rule_of(name).name}"' in answer
        assert message in answer.replace('\\"', '"')
        return
    found = warnings(frontend, text)
    short, places = found[rule_of(name).name.encode()]
    assert message in short
    assert places == lines


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"invalid_default_arg_in_from", "undefined_arg_in_from"}))
def test_what_is_skipped(frontend, name: str) -> None:
    text = FOUND[name][0]
    if name == "invalid_base_image_platform":
        text = "ARG X\n" + text
    checks = f"# check=skip={rule_of(name).name}\n"
    text = checks + text.replace("# check=experimental=all\n", "")
    assert rule_of(name).name.encode() not in warnings(frontend, text)


@pytest.mark.parametrize("name", NAMES)
def test_where_it_is_explained(name: str) -> None:
    url = rule_of(name).url
    assert url == "" if name == "invalid_base_image_platform" else url.endswith(f"/{name.replace('_', '-')}/")
