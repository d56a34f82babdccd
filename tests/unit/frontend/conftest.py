"""A gateway that answers out of dictionaries, and remembers what it was asked."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import pytest

from brickyard.frontend.dockerfile.frontend import dockerfile_frontend
from brickyard.frontend.gateway import caps as gateway_caps
from brickyard.llb import caps
from brickyard.llb.bridge import BridgeError, FrontendCall
from brickyard.wire.errors import make_status
from brickyard.wire.h2.server import Server, Unary, serve
from brickyard.wire.h2.server import status_of as plain_status
from brickyard.wire.pb import errdefs_pb2, gateway_pb2, ops_pb2, rpc_status_pb2

GATEWAY_CAPS = frozenset(v for k, v in vars(gateway_caps).items() if k.isupper() and isinstance(v, str))
DIGEST = "sha256:" + "1" * 64


def config(architecture: str = "amd64", **extra: Any) -> bytes:
    """An image config."""
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], **extra},
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        "created": "2020-01-02T03:04:05Z",
    }
    return json.dumps(document).encode()


@dataclass
class FakeGateway:
    """`files` are what every ref holds, `images` the configs of references (any other image has a plain one)."""

    files: Mapping[str, bytes | str] = field(default_factory=dict)
    images: Mapping[str, bytes] = field(default_factory=dict)
    metadata: Mapping[str, gateway_pb2.ResolveSourceMetaResponse] = field(default_factory=dict)
    gateway_caps: Iterable[str] = GATEWAY_CAPS
    llb_caps: Iterable[str] = caps.KNOWN
    platforms: tuple[str, ...] = ("linux/amd64",)
    given: Mapping[str, ops_pb2.Definition] = field(default_factory=dict)
    failing: Mapping[str, BridgeError] = field(default_factory=dict)
    forwarded: gateway_pb2.Result | None = None
    solved: list[gateway_pb2.SolveRequest] = field(default_factory=list)
    resolved: list[Any] = field(default_factory=list)
    warnings: list[gateway_pb2.WarnRequest] = field(default_factory=list)
    returned: list[gateway_pb2.ReturnRequest] = field(default_factory=list)

    def ping(self) -> gateway_pb2.PongResponse:
        pong = gateway_pb2.PongResponse()
        for cap in sorted(self.gateway_caps):
            pong.FrontendAPICaps.add(ID=cap, Enabled=True)
        for cap in sorted(self.llb_caps):
            pong.LLBCaps.add(ID=cap, Enabled=True)
        worker = pong.Workers.add()
        for platform in self.platforms:
            os, architecture = platform.split("/")[:2]
            worker.platforms.add(OS=os, Architecture=architecture)
        return pong

    def inputs(self) -> gateway_pb2.InputsResponse:
        response = gateway_pb2.InputsResponse()
        for name, definition in self.given.items():
            response.Definitions[name].CopyFrom(definition)
        return response

    def solve(self, request: gateway_pb2.SolveRequest) -> gateway_pb2.SolveResponse:
        self.solved.append(request)
        if request.Frontend:
            if "solve" in self.failing:
                raise self.failing["solve"]
            return gateway_pb2.SolveResponse(result=self.forwarded)
        if "return" not in self.gateway_caps:
            return gateway_pb2.SolveResponse(ref=str(len(self.solved)))
        return gateway_pb2.SolveResponse(result=gateway_pb2.Result(ref=gateway_pb2.Ref(id=str(len(self.solved)))))

    def evaluate(self, request: gateway_pb2.EvaluateRequest) -> gateway_pb2.EvaluateResponse:
        return gateway_pb2.EvaluateResponse()

    def resolve_image_config(
        self, request: gateway_pb2.ResolveImageConfigRequest
    ) -> gateway_pb2.ResolveImageConfigResponse:
        self.resolved.append(request)
        if request.Ref in self.failing:
            raise self.failing[request.Ref]
        data = self.images.get(request.Ref, config())
        return gateway_pb2.ResolveImageConfigResponse(Digest=DIGEST, Config=data, Ref=request.Ref)

    def resolve_source_meta(
        self, request: gateway_pb2.ResolveSourceMetaRequest
    ) -> gateway_pb2.ResolveSourceMetaResponse:
        self.resolved.append(request)
        identifier = request.Source.identifier
        if identifier in self.failing:
            raise self.failing[identifier]
        if identifier in self.metadata:
            return self.metadata[identifier]
        response = gateway_pb2.ResolveSourceMetaResponse(Source=request.Source)
        response.Image.Digest = "sha256:" + sha256(identifier.encode()).hexdigest()
        response.Image.Config = self.images.get(identifier.partition("://")[2], config())
        return response

    def read_file(self, request: gateway_pb2.ReadFileRequest) -> gateway_pb2.ReadFileResponse:
        data = self.files.get(request.FilePath)
        if data is None:
            raise BridgeError(f"open {request.FilePath}: no such file or directory", 5)
        raw = data.encode() if isinstance(data, str) else data
        if request.HasField("Range"):
            raw = raw[request.Range.Offset :][: request.Range.Length]
        return gateway_pb2.ReadFileResponse(Data=raw)

    def read_dir(self, request: gateway_pb2.ReadDirRequest) -> gateway_pb2.ReadDirResponse:
        return gateway_pb2.ReadDirResponse()

    def stat_file(self, request: gateway_pb2.StatFileRequest) -> gateway_pb2.StatFileResponse:
        return gateway_pb2.StatFileResponse()

    def warn(self, request: gateway_pb2.WarnRequest) -> gateway_pb2.WarnResponse:
        self.warnings.append(request)
        return gateway_pb2.WarnResponse()

    def sources(self) -> list[ops_pb2.SourceOp]:
        """The sources of all that was solved, each once, in order."""
        found = {}
        for request in self.solved:
            for data in getattr(request.Definition, "def"):
                op = ops_pb2.Op.FromString(data)
                if op.WhichOneof("op") == "source":
                    found[data] = op.source
        return list(found.values())

    def ops(self, number: int = -1) -> list[ops_pb2.Op]:
        """The ops of one solve, the last by default."""
        return [ops_pb2.Op.FromString(data) for data in getattr(self.solved[number].Definition, "def")]

    def names(self) -> list[str]:
        """The names of all vertices that were solved."""
        out = []
        for request in self.solved:
            definition = request.Definition
            for data in getattr(definition, "def"):
                entry = definition.metadata["sha256:" + sha256(data).hexdigest()]
                if "llb.customname" in entry.description:
                    out.append(entry.description["llb.customname"])
        return out


METHODS = {
    "Ping": ("ping", gateway_pb2.PingRequest),
    "Inputs": ("inputs", gateway_pb2.InputsRequest),
    "Solve": ("solve", gateway_pb2.SolveRequest),
    "ReadFile": ("read_file", gateway_pb2.ReadFileRequest),
    "ResolveImageConfig": ("resolve_image_config", gateway_pb2.ResolveImageConfigRequest),
    "ResolveSourceMeta": ("resolve_source_meta", gateway_pb2.ResolveSourceMetaRequest),
    "Warn": ("warn", gateway_pb2.WarnRequest),
}
"""The calls of a frontend container: method and request."""
_SERVICE = "/moby.buildkit.v1.frontend.LLBBridge/"


def described(error: BaseException) -> rpc_status_pb2.Status:
    """A failed call with a typed detail."""
    if isinstance(error, BridgeError):
        return make_status(error.code, str(error), [errdefs_pb2.Vertex(digest="sha256:1")])
    return plain_status(error)


def service(gateway: "FakeGateway") -> dict[str, Unary]:
    """The gateway's methods as a server has them."""
    methods = {}
    for name, (method, kind) in METHODS.items():
        call = getattr(gateway, method)
        takes_none = method in ("ping", "inputs")
        methods[_SERVICE + name] = Unary(
            kind, (lambda _, __, call=call: call()) if takes_none else (lambda request, _, call=call: call(request))
        )

    def take(request: gateway_pb2.ReturnRequest, call: object) -> gateway_pb2.ReturnResponse:
        gateway.returned.append(request)
        return gateway_pb2.ReturnResponse()

    return {**methods, f"{_SERVICE}Return": Unary(gateway_pb2.ReturnRequest, take)}


@dataclass
class Frontend:
    """The Dockerfile frontend on a gateway that is made up."""

    def build(self, gateway: FakeGateway, compatible: tuple[str, ...] = (), **opts: str) -> gateway_pb2.Result:
        """Build with frontend options."""
        return dockerfile_frontend(gateway, FrontendCall(opts, "session"), compatible)

    def gateway(self, dockerfile: str = "FROM scratch\n", **more: Any) -> FakeGateway:
        """A gateway with a Dockerfile, and more files."""
        files = {"Dockerfile": dockerfile, **more.pop("files", {})}
        return FakeGateway(files, **more)

    def run(
        self, gateway: FakeGateway, opts: dict[str, str], command: list[str] | None = None, **environ: str
    ) -> tuple[int, str]:
        """Run the container's process against a gateway; gives its exit code and what it wrote to standard error."""
        server = Server(service(gateway), 8, described)
        ours, theirs = socket.socketpair()
        connection = server.connect(ours.sendall)
        thread = threading.Thread(target=serve, args=(connection, lambda: ours.recv(65536), ours.close), daemon=True)
        thread.start()
        numbered = {f"BUILDKIT_FRONTEND_OPT_{n}": f"{key}={value}" for n, (key, value) in enumerate(opts.items())}
        process = subprocess.Popen(
            command or [sys.executable, "-m", "brickyard.frontend.gateway"],
            stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
            env={**os.environ, "BUILDKIT_SESSION_ID": "session", **numbered, **environ},
        )  # fmt: skip
        theirs.close()
        _, said = process.communicate(timeout=30)
        thread.join(10)
        server.stop()
        return process.returncode, said.decode()


@pytest.fixture
def frontend() -> Frontend:
    """The frontend."""
    return Frontend()
