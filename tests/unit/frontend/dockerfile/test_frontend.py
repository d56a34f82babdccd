"""The Dockerfile frontend on a gateway that is made up: what it asks for, and what it gives back."""

import base64
import json
import threading
from typing import Any

import pytest

from brickyard.frontend.gateway.status import FrontendError, status_of
from brickyard.grammar.errors import SourceError
from brickyard.llb import caps
from brickyard.llb.bridge import BridgeError
from brickyard.llb.caps import CapError
from brickyard.llb.marshal import marshal
from brickyard.llb.state import source
from brickyard.wire.errors import read_details
from brickyard.wire.pb import errdefs_pb2, gateway_pb2, ops_pb2


def config_of(result: gateway_pb2.Result, key: str = "containerimage.config") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.metadata[key])
    return document


def test_the_dockerfile_is_read_as_buildkit_reads_it(frontend) -> None:
    gateway = frontend.gateway("FROM scratch\nCOPY a /\n")
    frontend.build(gateway)
    dockerfile, ignore, context = gateway.sources()
    assert dockerfile.identifier == "local://dockerfile"
    assert dict(dockerfile.attrs) == {
        "local.session": "session",
        "local.followpaths": '["Dockerfile","Dockerfile.dockerignore","dockerfile"]',
        "local.sharedkeyhint": "dockerfile",
        "local.differ": "none",
    }
    assert ignore.identifier == "local://context"
    assert dict(ignore.attrs) == {
        "local.session": "session",
        "local.followpaths": '[".dockerignore"]',
        "local.sharedkeyhint": "context-.dockerignore",
        "local.differ": "none",
    }
    assert dict(context.attrs) == {
        "local.session": "session",
        "local.followpaths": '["a"]',
        "local.sharedkeyhint": "context",
    }
    assert gateway.names()[:2] == [
        "[internal] load build definition from Dockerfile",
        "[internal] load .dockerignore",
    ]


def test_another_name_and_its_ignore_file(frontend) -> None:
    files = {"sub/App": "FROM scratch\nCOPY . /\n", "sub/App.dockerignore": "*.log\n", ".dockerignore": "*\n"}
    gateway = frontend.gateway(files=files)
    frontend.build(gateway, filename="sub/App")
    dockerfile, context = gateway.sources()
    assert json.loads(dockerfile.attrs["local.followpaths"]) == ["sub/App", "sub/App.dockerignore"]
    assert context.attrs["local.excludepatterns"] == '["*.log"]'


def test_the_lower_case_name(frontend) -> None:
    gateway = frontend.gateway()
    gateway.files = {"dockerfile": "FROM scratch\n"}
    assert config_of(frontend.build(gateway))["os"] == "linux"


def test_no_dockerfile(frontend) -> None:
    gateway = frontend.gateway()
    gateway.files = {}
    with pytest.raises(BridgeError, match="failed to read dockerfile: open Dockerfile: no such file") as raised:
        frontend.build(gateway)
    assert status_of(raised.value).code == 5


def test_locals_of_other_names_and_sessions(frontend) -> None:
    gateway = frontend.gateway("FROM scratch\nCOPY . /\n")
    opts = {"dockerfilekey": "df", "local-sessionid:df": "one", "local-sessionid:context": "two"}
    frontend.build(gateway, **opts)
    assert [(s.identifier, s.attrs["local.session"]) for s in gateway.sources()] == [
        ("local://df", "one"), ("local://context", "two"), ("local://context", "two"),
    ]  # fmt: skip


def test_the_result_of_one_platform(frontend) -> None:
    result = frontend.build(frontend.gateway("FROM alpine\nENV A=<b>\n"))
    assert result.ref.id
    assert b'"A=\\u003cb\\u003e"' in result.metadata["containerimage.config"]
    assert config_of(result)["config"] == {"Env": ["PATH=/bin", "A=<b>"], "Cmd": ["sh"]}
    assert "created" not in config_of(result)
    assert config_of(result, "containerimage.base.config")["created"] == "2020-01-02T03:04:05Z"
    assert config_of(result, "refs.platforms")["Platforms"][0]["ID"].startswith("linux/")


def test_the_result_of_several_platforms(frontend) -> None:
    gateway = frontend.gateway("FROM alpine\nARG TARGETPLATFORM\nRUN echo $TARGETPLATFORM\nRUM\n".replace("RUM\n", ""))
    result = frontend.build(gateway, platform="linux/amd64,linux/arm64,windows/amd64")
    assert set(result.refs.refs) == {"linux/amd64", "linux/arm64", "windows/amd64"}
    assert len({ref.id for ref in result.refs.refs.values()}) == 3
    assert config_of(result, "containerimage.config/linux/arm64")["architecture"] == "arm64"
    listed = config_of(result, "refs.platforms")["Platforms"]
    assert [entry["ID"] for entry in listed] == ["linux/amd64", "linux/arm64", "windows/amd64"]
    assert "[linux/arm64 2/2] RUN echo linux/arm64" in gateway.names()
    assert any(request.LogName.startswith("[linux/arm64 internal] load metadata") for request in gateway.resolved)


@pytest.mark.parametrize("key", ["multi-platform", "build-arg:BUILDKIT_MULTI_PLATFORM"])
def test_one_platform_as_several(frontend, key: str) -> None:
    result = frontend.build(frontend.gateway(), platform="linux/arm64", **{key: "1"})
    assert set(result.refs.refs) == {"linux/arm64"}
    with pytest.raises(SourceError, match="conflicting config"):
        frontend.build(frontend.gateway(), platform="linux/arm64,linux/amd64", **{key: "false"})


def test_warnings_come_with_their_place_and_once(frontend) -> None:
    gateway = frontend.gateway("FROM alpine\nMAINTAINER \\\n me\n")
    frontend.build(gateway, platform="linux/amd64,linux/arm64")
    (warning,) = gateway.warnings
    assert warning.short == (
        b"MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"
    )
    assert [(r.start.line, r.end.line) for r in warning.ranges] == [(2, 2), (3, 3)]
    assert warning.info.filename == "Dockerfile"
    assert warning.info.language == "Dockerfile"
    assert warning.url == "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/"
    assert warning.digest.startswith("sha256:")
    assert warning.level == 1


def test_checks_from_the_options(frontend) -> None:
    key, text = "build-arg:BUILDKIT_DOCKERFILE_CHECK", "FROM scratch\nMAINTAINER me\n"
    with pytest.raises(SourceError, match="lint violation found for rules: MaintainerDeprecated"):
        frontend.build(frontend.gateway(text), **{key: "error=true"})
    gateway = frontend.gateway(f"# check=error=true\n{text}")
    frontend.build(gateway, **{key: "skip=all"})
    assert gateway.warnings == []


def test_an_error_has_its_place(frontend) -> None:
    with pytest.raises(FrontendError) as raised:
        frontend.build(frontend.gateway("FROM scratch\nRUM echo \\\n x\n"))
    status = status_of(raised.value)
    assert status.message == "unknown instruction: RUM (did you mean RUN?)"
    (detail,) = read_details(status)
    assert isinstance(detail, errdefs_pb2.Source)
    assert detail.info.data == b"FROM scratch\nRUM echo \\\n x\n"
    assert [r.start.line for r in detail.ranges] == [2, 3]
    assert raised.value.excerpt().splitlines()[0] == "Dockerfile:2: unknown instruction: RUM"


def test_an_image_that_is_not_there(frontend) -> None:
    status = errdefs_pb2  # the detail of the failed call stays beside the place
    failed = BridgeError("docker.io/library/alpin:latest: not found", 5)
    gateway = frontend.gateway("FROM alpin\n", failing={"docker-image://docker.io/library/alpin:latest": failed})
    with pytest.raises(FrontendError) as raised:
        frontend.build(gateway)
    found = status_of(raised.value)
    assert found.code == 5
    assert found.message == "alpin: docker.io/library/alpin:latest: not found (did you mean alpine?)"
    assert [type(detail) for detail in read_details(found)] == [status.Source]


def test_an_image_of_a_mount_that_is_not_there(frontend) -> None:
    failed = BridgeError("docker.io/library/tols:latest: not found", 5)
    text = "FROM scratch\nRUN --mount=from=tols,target=/t x\n"
    gateway = frontend.gateway(text, failing={"docker-image://docker.io/library/tols:latest": failed})
    with pytest.raises(FrontendError) as raised:
        frontend.build(gateway, **{"context:tools": "local:tools"})
    found = status_of(raised.value)
    assert found.message == "tols: docker.io/library/tols:latest: not found (did you mean tools?)"
    (source,) = read_details(found)
    assert isinstance(source, errdefs_pb2.Source)
    assert [place.start.line for place in source.ranges] == [2]


def test_old_gateways_are_asked_the_old_way(frontend) -> None:
    gateway = frontend.gateway("FROM alpine\nRUN a\n", gateway_caps=frozenset(), llb_caps=frozenset())
    result = frontend.build(gateway)
    assert result.ref.id
    (request,) = gateway.resolved
    assert isinstance(request, gateway_pb2.ResolveImageConfigRequest)
    assert request.Ref == "docker.io/library/alpine:latest"
    assert all(solved.ExporterAttr == b"{}" for solved in gateway.solved)


def test_what_the_solver_does_not_know_is_left_out(frontend) -> None:
    text = "FROM alpine\nCOPY --link a /\nCOPY --parents b/c /\nRUN --mount=target=/m,rw x\n"
    opts = {"ulimit": "nofile=1:2", "shm-size": "64", "cgroup-parent": "g", "memory": "1000"}
    new, old = frontend.gateway(text), frontend.gateway(text, llb_caps=caps.FIRST | {caps.FILE_BASE})
    frontend.build(new, **opts)
    frontend.build(old, **opts)
    kinds = [[op.WhichOneof("op") for op in gateway.ops()] for gateway in (new, old)]
    assert "merge" in kinds[0]
    assert "merge" not in kinds[1]
    run, old_run = (next(op.exec for op in gateway.ops() if op.WhichOneof("op") == "exec") for gateway in (new, old))
    assert (len(run.meta.ulimit), len(old_run.meta.ulimit)) == (1, 0)
    assert [m.dest for m in run.mounts] == ["/", "/dev/shm", "/m"]
    assert [m.dest for m in old_run.mounts] == ["/", "/m"]
    assert (run.meta.cgroupParent, old_run.meta.cgroupParent) == ("g", "")
    assert (run.mounts[2].output, old_run.mounts[1].output) == (-1, 1)
    copies = [
        a.copy for gateway in (new, old) for op in gateway.ops() for a in op.file.actions if a.copy.include_patterns
    ]
    assert [list(copy.required_paths) for copy in copies] == [["/b/c"], []]
    limits = [m.linux_resources.memory for m in new.solved[-1].Definition.metadata.values()]
    assert 1000 in limits


def test_what_the_solver_must_know_is_an_error(frontend) -> None:
    gateway = frontend.gateway("FROM scratch\nRUN --network=host x\n", llb_caps=caps.FIRST | {caps.FILE_BASE})
    with pytest.raises(CapError, match=r"exec\.meta\.network is not supported by the build server") as raised:
        frontend.build(gateway)
    assert status_of(raised.value).code == 12


def test_options_of_processes(frontend) -> None:
    gateway = frontend.gateway("FROM scratch\nRUN x\n")
    opts = {
        "add-hosts": "Tower=10.0.0.9,six=::1", "ulimit": "nofile=5:10,nproc=3", "hostname": "h", "cgroup-parent": "g",
        "force-network-mode": "none", "build-arg:HTTP_PROXY": "p", "build-arg:BUILDKIT_CACHE_MOUNT_NS": "ns",
    }  # fmt: skip
    frontend.build(gateway, **opts)
    (run,) = (op.exec for op in gateway.ops() if op.WhichOneof("op") == "exec")
    assert [(h.Host, h.IP) for h in run.meta.extraHosts] == [("tower", "10.0.0.9"), ("six", "::1")]
    assert [(u.Name, u.Soft, u.Hard) for u in run.meta.ulimit] == [("nofile", 5, 10), ("nproc", 3, 3)]
    assert (run.meta.hostname, run.meta.cgroupParent, run.network) == ("h", "g", 2)
    assert run.meta.proxy_env.http_proxy == "p"


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        ({"platform": "linux/"}, "failed to parse target platform"),
        ({"image-resolve-mode": "x"}, "invalid image-resolve-mode: x"),
        ({"force-network-mode": "x"}, "invalid netmode x"),
        ({"add-hosts": "x"}, "invalid key-value pair x"),
        ({"add-hosts": "x=y"}, "failed to parse IP y"),
        ({"ulimit": "x"}, "invalid ulimit argument: x"),
        ({"ulimit": "x=1"}, "invalid ulimit type: x"),
        ({"ulimit": "nofile=a"}, "nofile=a is not NAME=SOFT"),
        ({"ulimit": "nofile=2:1"}, "above the hard limit"),
        ({"shm-size": "x"}, "shm-size takes a number"),
        ({"memory": "-1"}, "invalid memory value: -1"),
        ({"cpusetcpus": "a"}, "invalid cpusetcpus value: a"),
        ({"cache-imports": "{"}, "failed to unmarshal cache-imports"),
        ({"attest:sbom": "generator="}, "sbom scanner cannot be empty"),
        ({"attest:other": ""}, "unknown attestation type"),
        ({"multi-platform": "x"}, "invalid boolean value for multi-platform: x"),
    ],
)
def test_options_that_mean_nothing(frontend, opts: dict[str, str], message: str) -> None:
    with pytest.raises(SourceError) as raised:
        frontend.build(frontend.gateway(), **opts)
    assert message in str(raised.value)


def test_the_resolve_mode_is_in_the_op(frontend) -> None:
    gateway = frontend.gateway("FROM alpine\n")
    frontend.build(gateway, **{"image-resolve-mode": "pull"})
    assert gateway.sources()[-1].attrs["image.resolvemode"] == "pull"
    assert gateway.resolved[0].ResolveMode == "pull"


def test_cache_imports_old_and_new(frontend) -> None:
    gateway = frontend.gateway()
    frontend.build(gateway, **{"cache-imports": '[{"Type":"local","Attrs":{"src":"x"}}]', "cache-from": "a,b"})
    found = [(entry.Type, dict(entry.Attrs)) for entry in gateway.solved[-1].CacheImports]
    assert found == [("local", {"src": "x"}), ("registry", {"ref": "a"}), ("registry", {"ref": "b"})]


@pytest.mark.parametrize(("value", "expected"), [(None, [False, False]), ("", [True, True]), ("ONE", [True, False])])
def test_no_cache(frontend, value: str | None, expected: list[bool]) -> None:
    gateway = frontend.gateway("FROM scratch AS one\nRUN a\nFROM one AS two\nRUN b\n")
    frontend.build(gateway, **({} if value is None else {"no-cache": value}))
    definition = gateway.solved[-1].Definition
    named = {m.description["llb.customname"]: m.ignore_cache for m in definition.metadata.values() if m.description}
    assert [named["[one 1/1] RUN a"], named["[two 1/1] RUN b"]] == expected


def given(name: str) -> ops_pb2.Definition:
    return marshal(source(f"docker-image://docker.io/library/{name}:latest").output).to_pb()


def test_an_input_in_the_place_of_the_context(frontend) -> None:
    gateway = frontend.gateway("FROM scratch\nCOPY a /\n", given={"context": given("ctx")})
    frontend.build(gateway)
    dockerfile, context = gateway.sources()
    assert dockerfile.identifier == "local://dockerfile"
    assert context.identifier == "docker-image://docker.io/library/ctx:latest"
    assert getattr(given("ctx"), "def")[0] in list(getattr(gateway.solved[-1].Definition, "def"))


def test_an_input_in_the_place_of_the_dockerfile(frontend) -> None:
    gateway = frontend.gateway(given={"dockerfile": given("df")})
    frontend.build(gateway)
    assert gateway.sources()[0].identifier == "docker-image://docker.io/library/df:latest"


def test_a_git_context(frontend) -> None:
    gateway = frontend.gateway("FROM scratch\nCOPY a /\n", files={".dockerignore": "a"})
    frontend.build(gateway, context="https://example.com/r.git#main:sub")
    (repository,) = gateway.sources()
    assert repository.identifier == "git://example.com/r.git#main:sub"
    assert repository.attrs["git.fullurl"] == "https://example.com/r.git"
    assert gateway.names()[0] == "[internal] load git source https://example.com/r.git#main:sub"


def test_a_git_context_without_a_scheme(frontend) -> None:
    gateway = frontend.gateway()
    frontend.build(gateway, context="github.com/owner/name#v1")
    assert gateway.sources()[0].identifier == "git://github.com/owner/name#v1"
    assert gateway.sources()[0].attrs["git.fullurl"] == "https://github.com/owner/name"


def test_a_git_context_keeps_its_history_and_times(frontend) -> None:
    args = {"build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR": "1", "build-arg:SOURCE_DATE_EPOCH": "5"}
    gateway = frontend.gateway()
    frontend.build(gateway, context="https://example.com/r.git", **args)
    attrs = gateway.sources()[0].attrs
    assert (attrs["git.keepgitdir"], attrs["git.mtime"]) == ("true", "commit")
    old = frontend.gateway(llb_caps=caps.KNOWN - {caps.SOURCE_GIT_MTIME})
    frontend.build(old, context="https://example.com/r.git", **args)
    assert "git.mtime" not in old.sources()[0].attrs


@pytest.mark.parametrize("start", [b"BZh9", b"\x1f\x8b\x08\x00", b"\xfd7zXZ\x00"])
def test_an_http_archive(frontend, start: bytes) -> None:
    gateway = frontend.gateway("FROM scratch\nCOPY a /\n", files={"context": start + bytes(600)})
    frontend.build(gateway, context="https://example.com/c.tgz")
    unpacked = next(op.file for op in gateway.ops() if op.WhichOneof("op") == "file")
    assert unpacked.actions[0].copy.attemptUnpackDockerCompatibility
    assert gateway.sources()[0].attrs["http.filename"] == "context"


def test_a_single_file_over_http(frontend) -> None:
    gateway = frontend.gateway(files={"context": "FROM alpine\nLABEL from=http\n"})
    result = frontend.build(gateway, context="https://example.com/Dockerfile")
    assert config_of(result)["config"]["Labels"] == {"from": "http"}


def test_a_folder_of_a_remote_context(frontend) -> None:
    gateway = frontend.gateway("FROM scratch\nCOPY a /\n")
    frontend.build(gateway, context="https://example.com/r.git", contextsubdir="app")
    copy = next(op.file.actions[0].copy for op in gateway.ops() if op.WhichOneof("op") == "file")
    assert (copy.src, copy.dest, copy.dirCopyContents) == ("/app", "/", True)


def test_a_copy_of_what_is_ignored(frontend) -> None:
    text = "FROM scratch\nCOPY a.o b /\nADD ./sub/c.o /\nCOPY --from=x a.o /\n"
    gateway = frontend.gateway(text, files={".dockerignore": "**/*.o\n"})
    frontend.build(gateway)
    assert [w.short for w in gateway.warnings] == [
        b'CopyIgnoredFile: Attempting to Copy file "a.o" that is excluded by .dockerignore (line 2)',
        b'CopyIgnoredFile: Attempting to Add file "sub/c.o" that is excluded by .dockerignore (line 3)',
    ]
    quiet = frontend.gateway(text, files={".dockerignore": "**/*.o\n!a.o\n"})
    frontend.build(quiet)
    assert quiet.warnings == []


def test_an_image_for_another_platform(frontend) -> None:
    gateway = frontend.gateway("FROM alpine\nRUN x\n")
    frontend.build(gateway, platform="linux/arm64")
    assert gateway.warnings[0].short == (
        b'InvalidBaseImagePlatform: Base image alpine was pulled with platform "linux/amd64", '
        b'expected "linux/arm64" for current build (line 1)'
    )


def test_the_epoch(frontend) -> None:
    result = frontend.build(frontend.gateway("FROM scratch\nENV A=1\n"), **{"build-arg:SOURCE_DATE_EPOCH": "0"})
    assert result.metadata["source.date.epoch"] == b"0"
    assert config_of(result)["history"][0]["created"] == "1970-01-01T00:00:00Z"


def test_the_epoch_of_a_git_context(frontend) -> None:
    commit = b"tree 1\nauthor A <a@b> 5 +0000\ncommitter C <c@d> 1700000000 +0100\n\ncommitter X <x@y> 1 +0000\n"
    answer = gateway_pb2.ResolveSourceMetaResponse()
    answer.Git.CommitObject = commit
    gateway = frontend.gateway(metadata={"git://example.com/r.git": answer})
    opts = {"context": "https://example.com/r.git", "build-arg:SOURCE_DATE_EPOCH": "context"}
    assert frontend.build(gateway, **opts).metadata["source.date.epoch"] == b"1700000000"
    assert gateway.resolved[0].Git.ReturnObject


def test_the_epoch_of_a_stage(frontend) -> None:
    answer = gateway_pb2.ResolveSourceMetaResponse()
    answer.HTTP.LastModified.seconds = 77
    text = "FROM scratch AS src\nADD https://example.com/f /\nFROM scratch\nENV a=b\n"
    gateway = frontend.gateway(text, metadata={"https://example.com/f": answer})
    assert frontend.build(gateway, **{"build-arg:SOURCE_DATE_EPOCH": "src"}).metadata["source.date.epoch"] == b"77"
    with pytest.raises(SourceError, match="invalid SOURCE_DATE_EPOCH: nothing"):
        frontend.build(frontend.gateway(text), **{"build-arg:SOURCE_DATE_EPOCH": "nothing"})
    with pytest.raises(SourceError, match="must contain exactly one remote ADD"):
        frontend.build(frontend.gateway("FROM scratch AS s\n"), **{"build-arg:SOURCE_DATE_EPOCH": "s"})


def test_a_bill_of_materials(frontend) -> None:
    text = (
        "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nFROM alpine AS b\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN x\n"
        "FROM scratch\nARG BUILDKIT_SBOM_SCAN_CONTEXT\nCOPY --from=b /x /\nCOPY y /\n"
    )
    scanner = json.dumps({"config": {"Entrypoint": ["scan"], "Env": ["A=b"]}}).encode()
    gateway = frontend.gateway(text, images={"docker.io/library/scanner:1": scanner})
    result = frontend.build(gateway, **{"attest:sbom": "generator=scanner:1,key=value", "platform": "linux/amd64"})
    (attestation,) = result.attestations["linux/amd64"].attestation
    assert attestation.kind == gateway_pb2.Bundle
    assert attestation.inTotoPredicateType == "https://spdx.dev/Document"
    assert dict(attestation.metadata) == {"reason": b"sbom", "sbom-core": b"sbom"}
    run = gateway.ops()[-2].exec
    assert run.meta.args == ["scan"]
    assert "BUILDKIT_SCAN_key=value" in run.meta.env
    assert "BUILDKIT_SCAN_SOURCE_EXTRAS=/run/src/extras" in run.meta.env
    assert [m.dest for m in run.mounts] == [
        "/", "/run/out/", "/run/src/core/sbom", "/run/src/extras/sbom-b", "/run/src/extras/sbom-context", "/tmp",
    ]  # fmt: skip
    terminal = gateway.ops()[-1]
    assert terminal.inputs[0].index == next(m.output for m in run.mounts if m.dest == "/run/out/")


def test_no_process_in_a_scanner(frontend) -> None:
    with pytest.raises(SourceError, match="does not have cmd"):
        frontend.build(frontend.gateway(images={"docker.io/library/s:latest": b"{}"}), **{"attest:sbom": "generator=s"})


def test_a_template(frontend) -> None:
    text = "# brickyard: template\nFROM {{ base }}\n{% for n in [1, 2] %}\nRUN echo {{ n }}\n{% endfor %}\n"
    gateway = frontend.gateway(text + "{% include 'more' %}\n", files={"more": "RUM\n"})
    with pytest.raises(FrontendError) as raised:
        frontend.build(gateway, **{"build-arg:base": "alpine"})
    assert raised.value.location is not None
    # Included lines count as the line that the text around them was last at.
    assert raised.value.location.start == 5
    fine = frontend.gateway(text)
    frontend.build(fine, **{"build-arg:base": "alpine"})
    definition = fine.solved[-1].Definition
    lines = sorted(p.locations[0].ranges[0].start.line for p in definition.Source.locations.values())
    assert lines == [2, 4, 4]
    assert definition.Source.infos[0].data == text.encode()


def test_input_metadata(frontend) -> None:
    image = base64.b64encode(json.dumps({"architecture": "arm64", "os": "linux", "config": {"Env": ["X=1"]}}).encode())
    opts = {
        "context:base": "input:in",
        "input-metadata:in": json.dumps({"containerimage.config": image.decode()}),
    }
    gateway = frontend.gateway("FROM base\nRUN x\n", given={"in": given("other")})
    result = frontend.build(gateway, **opts)
    assert config_of(result)["config"]["Env"][0] == "X=1"
    run = next(op for op in gateway.ops() if op.WhichOneof("op") == "exec")
    assert "X=1" in run.exec.meta.env


def test_old_solvers_get_a_path(frontend) -> None:
    gateway = frontend.gateway("FROM i\nRUN x\n", llb_caps=caps.FIRST | {caps.FILE_BASE}, images={
        "docker.io/library/i:latest": b'{"os":"windows","architecture":"amd64","rootfs":{"diff_ids":["x"]}}',
    })  # fmt: skip
    frontend.build(gateway, platform="windows/amd64")
    windows = next(op.exec for op in gateway.ops() if op.WhichOneof("op") == "exec")
    assert windows.meta.env == []


def test_the_history_of_a_health_check_is_as_the_daemon_writes_it(frontend) -> None:
    text = "FROM scratch\nHEALTHCHECK --interval=5s --retries=39 CMD x\nHEALTHCHECK NONE\n"
    old = frontend.gateway(text, llb_caps=caps.KNOWN - {caps.SOURCE_GIT_FETCH_BY_COMMIT})
    history = [
        [h["created_by"] for h in config_of(frontend.build(g))["history"]] for g in (frontend.gateway(text), old)
    ]
    assert history == [
        [
            "HEALTHCHECK {Test:[CMD-SHELL x] Interval:5s Timeout:0s StartPeriod:0s StartInterval:0s Retries:39}",
            "HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
        ],
        [
            'HEALTHCHECK &{["CMD-SHELL" "x"] "5s" "0s" "0s" "0s" \'\\\'\'}',
            'HEALTHCHECK &{["NONE"] "0s" "0s" "0s" "0s" \'\\x00\'}',
        ],
    ]


def test_images_are_looked_up_at_once(frontend) -> None:
    gateway = frontend.gateway("FROM one\nRUN x\nFROM two AS t\nFROM three\nCOPY --from=one / /\nCOPY --from=t / /\n")
    met = threading.Barrier(3, timeout=10)
    answer = gateway.resolve_source_meta
    seen: list[str] = []

    def slow(request: gateway_pb2.ResolveSourceMetaRequest) -> gateway_pb2.ResolveSourceMetaResponse:
        seen.append(request.Source.identifier)
        met.wait()
        return answer(request)

    gateway.resolve_source_meta = slow
    frontend.build(gateway)
    assert sorted(seen) == [f"docker-image://docker.io/library/{name}:latest" for name in ("one", "three", "two")]


def test_a_failed_lookup_is_not_repeated(frontend) -> None:
    failing = {"docker-image://docker.io/library/two:latest": BridgeError("not found", 5)}
    gateway = frontend.gateway("FROM one AS a\nFROM two\nCOPY --from=a / /\n", failing=failing)
    with pytest.raises(FrontendError) as raised:
        frontend.build(gateway)
    assert raised.value.location is not None
    assert raised.value.location.start == 2
    assert len(gateway.resolved) == 2
