"""A file that uses most of the language, built once while the image is packed, so that what is compiled on the way is
known; and the grammar's tables as a module."""

import types

from ...llb import caps as llb_caps
from ...llb.bridge import BridgeError, FrontendCall
from ...wire.pb import gateway_pb2
from ..gateway import caps

TABLES = "brickyard.grammar.dockerfile._tables"
_DOCKERFILE = b"""# syntax=example.com/brickyard/frontend:1
# check=skip=JSONArgsRecommended
ARG BASE=alpine:3.20
FROM --platform=$BUILDPLATFORM ${BASE} AS build
ARG TARGETARCH
ENV A=1 B="two words" C=${A:-x}
LABEL a=b c="d"
WORKDIR /src
COPY --chown=1000:1000 --chmod=u+x . .
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.com/a.tgz /
ADD https://example.com/repo.git#main:sub /repo
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=s,env=S --network=none \\
    make all
RUN <<EOT
echo hi
EOT
COPY <<-"one" /etc/one
	x
one
FROM scratch AS final
COPY --link --from=build /src /src
COPY --parents a/./b c/* /x/
VOLUME ["/data"]
EXPOSE 80/tcp 90-91
HEALTHCHECK --interval=5s CMD true
SHELL ["/bin/bash", "-c"]
STOPSIGNAL SIGTERM
ONBUILD RUN echo
USER nobody:nogroup
ENTRYPOINT ["a"]
CMD b $HOME
"""
_CONFIG = (
    b'{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["x"]}}'
)


class _Bridge:
    """A gateway that has one Dockerfile and every image."""

    def ping(self) -> gateway_pb2.PongResponse:
        pong = gateway_pb2.PongResponse()
        for cap in llb_caps.KNOWN:
            pong.LLBCaps.add(ID=cap, Enabled=True)
        for cap in vars(caps).values():
            if isinstance(cap, str):
                pong.FrontendAPICaps.add(ID=cap, Enabled=True)
        pong.Workers.add().platforms.add(OS="linux", Architecture="amd64")
        return pong

    def inputs(self) -> gateway_pb2.InputsResponse:
        return gateway_pb2.InputsResponse()

    def solve(self, request: gateway_pb2.SolveRequest) -> gateway_pb2.SolveResponse:
        return gateway_pb2.SolveResponse(result=gateway_pb2.Result(ref=gateway_pb2.Ref(id="r")))

    def read_file(self, request: gateway_pb2.ReadFileRequest) -> gateway_pb2.ReadFileResponse:
        files = {"Dockerfile": _DOCKERFILE, ".dockerignore": b"*.o\n!a/**/b\n"}
        if request.FilePath not in files:
            raise BridgeError("not found", 5)
        return gateway_pb2.ReadFileResponse(Data=files[request.FilePath])

    def resolve_source_meta(
        self, request: gateway_pb2.ResolveSourceMetaRequest
    ) -> gateway_pb2.ResolveSourceMetaResponse:
        found = gateway_pb2.ResolveSourceMetaResponse(Source=request.Source)
        found.Image.Digest = "sha256:" + "1" * 64
        found.Image.Config = _CONFIG
        return found

    def warn(self, request: gateway_pb2.WarnRequest) -> gateway_pb2.WarnResponse:
        return gateway_pb2.WarnResponse()


def build() -> None:
    """Build the sample in every way that makes a difference for what is imported."""
    from ..dockerfile.frontend import dockerfile_frontend

    for more in ({}, {"platform": "linux/amd64,linux/arm64"}, {"requestid": "frontend.lint"}):
        call = FrontendCall({"cmdline": "example.com/brickyard/frontend:1", **more}, "session")
        dockerfile_frontend(_Bridge(), call)  # type: ignore[arg-type]


def write_tables(code: dict[str, tuple[types.CodeType, bool]]) -> None:
    """Add the grammar's tables to the modules that are packed."""
    from ...grammar.dockerfile.tables import make

    source = f"TABLES = {tuple(make())!r}\n"
    code[TABLES] = (compile(source, "_tables.py", "exec"), False)
