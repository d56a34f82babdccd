"""What a provenance says of builds, by requests that ask for one."""

import json
import re
from typing import Any

import pytest

from brickyard.llb.bridge import Bridge, FrontendCall
from brickyard.llb.graph import Metadata, Output, SourceRange, Vertex
from brickyard.llb.marshal import SourceFile, marshal
from brickyard.llb.ops import Copy, FileAction, FileOp, MkDir, SourceOp
from brickyard.oci.platform import Platform
from brickyard.solver.base import Attestation, Context, Exportable, Result, SolveError
from brickyard.solver.build import Shared, run
from brickyard.solver.ops import TABLE
from brickyard.solver.provenance import purl, redacted, requested
from brickyard.solver.scheduler.status import Reporter
from brickyard.wire.pb import control_pb2, gateway_pb2

DIGEST = "sha256:" + "1" * 64
PLATFORM = Platform("linux", "arm64")


class Sources:
    """Sources that give nothing."""

    @staticmethod
    def selections(vertex: Vertex) -> tuple[()]:
        return ()

    @staticmethod
    def cache_key(vertex: Vertex, context: Context) -> str:
        return repr(vertex.op)

    @staticmethod
    def run(vertex: Vertex, inputs: Any, context: Context) -> list[Result]:
        return [Result(None)]


def frontend(bridge: Bridge, call: FrontendCall) -> gateway_pb2.Result:
    """A folder on an image."""
    base = Output(Vertex(SourceOp(f"docker-image://docker.io/library/alpine:3@{DIGEST}"), platform=PLATFORM))
    local = Output(Vertex(SourceOp("local://context", {"local.session": "s", "local.sharedkeyhint": "h"})))
    vertex = Vertex(
        FileOp((FileAction(MkDir("/x", 0o755), 0), FileAction(Copy("/a", "/b"), 2, 1, 0))),
        [base, local] if "local" in call.opts else [base, base],
        metadata=Metadata(locations=(SourceRange(2, 2),)),
    )
    definition = marshal(Output(vertex), source=SourceFile("Dockerfile", b"FROM alpine\nCOPY a b\n")).to_pb()
    return bridge.solve(
        gateway_pb2.SolveRequest(Definition=definition, allowResultReturn=True, allowResultArrayRef=True)
    ).result


def provenance(yard: Any, monkeypatch: pytest.MonkeyPatch, **attrs: str) -> tuple[Attestation, dict[str, Any]]:
    """The attestation that a build gives its exporter, and the predicate in it."""
    seen: list[Exportable] = []

    class Kept:
        def export(self, result: Exportable, id: str, attrs: Any, context: Context) -> dict[str, str]:
            seen.append(result)
            return {}

    class Files(Sources):
        @staticmethod
        def selections(vertex: Vertex) -> Any:
            return (None,) * len(vertex.inputs)

    monkeypatch.setitem(TABLE, SourceOp, Sources)
    monkeypatch.setitem(TABLE, FileOp, Files)
    monkeypatch.setattr("brickyard.solver.exporters.find", lambda type: Kept())
    request = control_pb2.SolveRequest(
        Frontend="test.v0", FrontendAttrs={key.replace("_", ":", 1): value for key, value in attrs.items()}
    )
    request.Exporters.add(Type="kept")
    run(request, yard.context, Reporter(lambda status: None), Shared({"test.v0": frontend}))
    [attestation] = seen[0].attestations[""]
    assert attestation.content is not None
    predicate = json.loads(attestation.content())
    assert json.loads(attestation.content()) == predicate
    return attestation, predicate


def test_the_least(yard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attestation, found = provenance(
        yard, monkeypatch, attest_provenance="mode=min,inline-only=true,builder-id=me",
        **{"build-arg_A": "secret", "filename": "Dockerfile", "target": "t", "platform": "x"},
    )  # fmt: skip
    assert (attestation.kind, attestation.path) == ("intoto", "provenance.json")
    assert attestation.predicate_type == "https://slsa.dev/provenance/v1"
    assert attestation.metadata == {"reason": b"provenance", "inline-only": b"true"}
    definition, details = found["buildDefinition"], found["runDetails"]
    assert definition["buildType"].endswith("slsa-definitions.md")
    assert definition["externalParameters"] == {
        "configSource": {"path": "Dockerfile"},
        "request": {"frontend": "test.v0", "args": {"target": "t"}},
    }
    assert definition["resolvedDependencies"] == [
        {"uri": "pkg:docker/alpine@3?platform=linux%2Farm64", "digest": {"sha256": "1" * 64}}
    ]
    assert "buildConfig" not in definition["internalParameters"]
    assert details["builder"] == {"id": "me"}
    metadata = details["metadata"]
    assert metadata["buildkit_completeness"] == {"request": False, "resolvedDependencies": True}
    assert metadata["buildkit_hermetic"] is True
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", metadata["startedOn"])
    assert metadata["startedOn"] <= metadata["finishedOn"]


def test_the_most(yard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = provenance(
        yard, monkeypatch, attest_provenance="reproducible=true", local="1",
        **{"build-arg_A": "1", "vcs_source": "https://me:pw@git.test/x", "vcs_revision": "abc"},
    )  # fmt: skip
    definition, metadata = found["buildDefinition"], found["runDetails"]["metadata"]
    request = definition["externalParameters"]["request"]
    assert request == {
        "frontend": "test.v0", "args": {"build-arg:A": "1", "local": "1"}, "locals": [{"name": "context"}],
    }  # fmt: skip
    assert metadata["buildkit_completeness"] == {"request": True, "resolvedDependencies": False}
    assert "buildkit_hermetic" not in metadata
    assert metadata["buildkit_reproducible"] is True
    notes = metadata["buildkit_metadata"]
    assert notes["vcs"] == {"source": "https://xxxxx:xxxxx@git.test/x", "revision": "abc"}
    steps = definition["internalParameters"]["buildConfig"]["llbDefinition"]
    image, local, files, last = steps
    assert image["op"]["Op"]["source"]["identifier"].startswith("docker-image://")
    assert local["op"]["Op"]["source"]["attrs"] == {"local.sharedkeyhint": "h"}
    assert files["inputs"] == ["step0:0", "step1:0"]
    mkdir, copy = files["op"]["Op"]["file"]["actions"]
    assert mkdir["Action"]["mkdir"]["path"] == "/x"
    assert (mkdir["input"], mkdir["secondaryInput"], copy["secondaryInput"], copy["output"]) == (0, -1, 1, 0)
    assert last == {"id": "step3", "op": {"Op": {}}, "inputs": ["step2:0"]}
    assert notes["source"]["infos"][0]["filename"] == "Dockerfile"
    assert notes["source"]["locations"]["step2"] == {
        "locations": [{"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]}]
    }


def test_the_older_version(yard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attestation, found = provenance(yard, monkeypatch, attest_provenance="version=v0.2", filename="x")
    assert attestation.predicate_type == "https://slsa.dev/provenance/v0.2"
    assert found["buildType"] == "https://mobyproject.org/buildkit@v1"
    assert found["invocation"]["configSource"] == {"entryPoint": "x"}
    assert found["metadata"]["completeness"] == {"parameters": True, "environment": True, "materials": True}
    assert found["metadata"]["https://mobyproject.org/buildkit@v1#hermetic"] is True
    assert len(found["buildConfig"]["llbDefinition"]) == 3


def test_complete_materials_are_demanded(yard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SolveError, match=r"materials are incomplete(?s:.)*- context"):
        provenance(yard, monkeypatch, attest_provenance="complete-materials=true", local="1")
    provenance(yard, monkeypatch, attest_provenance="complete-materials=true")


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"attest_provenance": "mode=most"}, "invalid mode 'most'"),
        ({"attest_provenance": "version=v7"}, "invalid provenance SLSA version: v7"),
        ({"attest_provenance": "reproducible=perhaps"}, "failed to parse reproducible flag 'perhaps'"),
        ({"attest_other": ""}, "unknown attestation type 'other'"),
    ],
)
def test_what_makes_no_sense(yard: Any, monkeypatch: pytest.MonkeyPatch, attrs: dict[str, str], message: str) -> None:
    with pytest.raises(SolveError, match=message):
        provenance(yard, monkeypatch, **attrs)


def test_requests() -> None:
    assert requested({"build-arg:BUILDKIT_ATTEST_PROVENANCE": "", "attest:sbom": 'a=1,"b=x,y"', "target": "t"}) == {
        "provenance": {},
        "sbom": {"a": "1", "b": "x,y"},
    }


@pytest.mark.parametrize(
    ("reference", "platform", "url"),
    [
        ("alpine", PLATFORM, "pkg:docker/alpine@latest?platform=linux%2Farm64"),
        ("docker.io/me/app:1", None, "pkg:docker/me/app@1"),
        ("reg.test:5000/a/b:c", None, "pkg:docker/reg.test:5000/a/b@c"),
        (f"alpine@{DIGEST}", None, f"pkg:docker/alpine?digest={DIGEST}"),
    ],
)
def test_package_urls(reference: str, platform: Platform | None, url: str) -> None:
    assert purl("docker", reference, platform) == url


def test_addresses_without_passwords() -> None:
    assert redacted("https://git.test/x") == "https://git.test/x"
    assert redacted("https://me@git.test/x") == "https://xxxxx@git.test/x"
    assert redacted("https://:pw@git.test/x") == "https://:xxxxx@git.test/x"
    assert redacted("not an address") == "not an address"
