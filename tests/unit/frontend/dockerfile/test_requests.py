"""Questions about a file, and their answers for people and for programs."""

import json

import pytest

from brickyard.frontend.dockerfile.requests import table
from brickyard.frontend.gateway.status import status_of
from brickyard.llb.bridge import BridgeError
from brickyard.wire.errors import read_details
from brickyard.wire.pb import errdefs_pb2

TEXT = """\
# TAG which base
ARG TAG=1
ARG ONLY=$TAG-x
FROM alpine:$ONLY AS base
# WORD what is said
ARG WORD
RUN --mount=type=secret,id=key,required=true --mount=type=ssh echo
# app the product
FROM base AS app
ARG TAG
RUN --mount=type=secret,id=other,env=X --mount=type=ssh,id=extra,required echo
COPY --from=tools /x /
FROM scratch AS tools
ARG UNUSED=1
"""


def ask(frontend, name: str, text: str = TEXT, **opts: str) -> tuple[dict, str, bytes]:
    result = frontend.build(frontend.gateway(text), requestid=name, **opts)
    assert not result.ref.id
    answer = json.loads(result.metadata["result.json"])
    return answer, result.metadata["result.txt"].decode(), result.metadata["version"]


def lines(location: dict) -> list[int]:
    return [place["start"]["line"] for place in location["ranges"]]


def test_the_outline(frontend) -> None:
    text = TEXT.replace("FROM scratch AS tools\nARG UNUSED=1\n", "")
    text = text.replace("FROM alpine", "FROM scratch AS tools\nARG TOOL=t\nFROM alpine")
    answer, shown, version = ask(frontend, "frontend.outline", text, target="app", **{"build-arg:WORD": "hi"})
    assert (answer["name"], answer["description"]) == ("app", "the product")
    assert [(arg["name"], arg.get("value"), arg.get("description")) for arg in answer["args"]] == [
        ("TAG", "1", "which base"), ("ONLY", "1-x", None), ("TOOL", "t", None), ("WORD", "hi", "what is said"),
    ]  # fmt: skip
    assert [(s["name"], s.get("required")) for s in answer["secrets"]] == [("key", True), ("other", None)]
    assert [(s["name"], s.get("required")) for s in answer["ssh"]] == [("default", None), ("extra", True)]
    assert lines(answer["secrets"][0]["location"]) == [9]
    assert version == b"1.0.0"
    assert shown.splitlines()[:4] == [
        "TARGET:      app",
        "DESCRIPTION: the product",
        "",
        "BUILD ARG   VALUE   DESCRIPTION",
    ]
    assert "key      true\nother    \n" in shown


def test_the_outline_of_args_before_the_first_stage(frontend) -> None:
    answer, _, _ = ask(frontend, "frontend.outline", "# A one\nARG A=1\nARG B=$A\nARG C=3\nFROM alpine:$B\n")
    assert [(arg["name"], arg["value"], lines(arg["location"])) for arg in answer["args"]] == [
        ("A", "1", [2]), ("B", "1", [3]),
    ]  # fmt: skip
    assert "name" not in answer


def test_the_targets(frontend) -> None:
    answer, shown, _ = ask(frontend, "frontend.targets")
    first, second, third = answer["targets"]
    assert first == {
        "name": "base",
        "base": "alpine:$ONLY",
        "location": {"ranges": [{"start": {"line": 4}, "end": {"line": 4}}]},
    }
    assert second["description"] == "the product"
    assert third["default"] is True
    assert shown == "TARGET          DESCRIPTION\nbase            \napp             the product\ntools (default) \n"


def test_a_target_without_a_name(frontend) -> None:
    _, shown, _ = ask(frontend, "frontend.targets", "FROM --platform=linux/arm64 alpine\n")
    assert shown == "TARGET    DESCRIPTION\n(default) \n"


def test_lint_of_all_stages(frontend) -> None:
    text = "FROM alpine AS one\nMAINTAINER x\nFROM scratch AS two\nWORKDIR rel\\\n\\\n/x\n"
    answer, shown, _ = ask(frontend, "frontend.lint", text)
    assert [(w["ruleName"], lines(w["location"])) for w in answer["warnings"]] == [
        ("MaintainerDeprecated", [2]), ("WorkdirRelativePath", [4, 5, 6]),
    ]  # fmt: skip
    assert answer["sources"][0]["filename"] == "Dockerfile"
    assert "buildError" not in answer
    assert shown == (
        "\nWARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/\n"
        "Maintainer instruction is deprecated in favor of using label\n"
        "Dockerfile:2\n--------------------\n"
        "   1 |     FROM alpine AS one\n   2 | >>> MAINTAINER x\n"
        "   3 |     FROM scratch AS two\n   4 |     WORKDIR rel\\\n"
        "--------------------\n"
        "\nWARNING: WorkdirRelativePath - https://docs.docker.com/go/dockerfile/rule/workdir-relative-path/\n"
        'Relative workdir "rel/x" can have unexpected results if the base image changes\n'
        "Dockerfile:4\n--------------------\n"
        "   3 |     FROM scratch AS two\n   4 | >>> WORKDIR rel\\\n   5 | >>> \\\n   6 | >>> /x\n   7 |     \n"
        "--------------------\n"
    )


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("FROM scratch\n", b"0", None),
        ("FROM scratch\nMAINTAINER x\n", b"1", None),
        ("FROM scratch\nRUM\n", b"1", "unknown instruction: RUM (did you mean RUN?)"),
        (
            "# check=error=true\nFROM scratch\nMAINTAINER x\n",
            b"1",
            "lint violation found for rules: MaintainerDeprecated",
        ),
    ],
)
def test_the_status_of_lint(frontend, text: str, status: bytes, message: str | None) -> None:
    result = frontend.build(frontend.gateway(text), requestid="frontend.lint")
    assert result.metadata["result.statuscode"] == status
    answer = json.loads(result.metadata["result.json"])
    assert answer.get("buildError", {}).get("message") == message


def test_lint_tells_of_a_failed_call(frontend) -> None:
    failing = {"docker-image://docker.io/library/none:latest": BridgeError("no such image", 5)}
    gateway = frontend.gateway("FROM scratch\nFROM none\n", failing=failing)
    result = frontend.build(gateway, requestid="frontend.lint")
    answer = json.loads(result.metadata["result.json"])
    assert answer["buildError"]["message"].startswith("none: no such image")
    assert lines(answer["buildError"]["location"]) == [2]


def test_what_can_be_asked(frontend) -> None:
    answer, shown, _ = ask(frontend, "frontend.subrequests.describe")
    assert [entry["name"] for entry in answer] == [
        "frontend.outline", "frontend.targets", "frontend.subrequests.describe",
    ]  # fmt: skip
    assert shown.splitlines()[0] == "NAME                 VERSION DESCRIPTION"


def test_the_graph(frontend) -> None:
    result = frontend.build(frontend.gateway("FROM alpine\nRUN x\n"), requestid="frontend.convertllb")
    answer = json.loads(result.metadata["result.json"])
    kinds = [op.keys() - {"inputs", "platform", "constraints"} for op in answer["def"].values()]
    assert sorted(map(sorted, kinds)) == [[], ["exec"], ["source"]]
    assert set(answer["metadata"]) == set(answer["def"])


def test_a_question_that_is_not_known(frontend) -> None:
    with pytest.raises(BridgeError, match=r"unsupported request frontend\.magic") as raised:
        frontend.build(frontend.gateway(), requestid="frontend.magic")
    status = status_of(raised.value)
    assert status.code == 12
    assert list(read_details(status)) == [errdefs_pb2.Subrequest(name="frontend.magic")]


def test_tables_are_set_as_go_sets_them() -> None:
    assert table([("A", "BC"), ("long", "d"), ("", "")], 2) == "A     BC\nlong  d\n      \n"
