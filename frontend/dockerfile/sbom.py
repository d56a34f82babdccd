"""Bills of materials: a process of the scanner image over what was built (BuildKit's docs/attestations/sbom-protocol).

The scanner gets the result under /run/src/core, other stages and the context under /run/src/extras, and writes SPDX
documents to /run/out.
"""

import json

from ...grammar.errors import SourceError
from ...llb import caps
from ...llb.marshal import marshal
from ...llb.ops import MkDir
from ...llb.state import Notes, RunMount, State, source
from ...oci.platform import Platform
from ...wire.pb import gateway_pb2
from ..gateway.client import Client, ResolvedElsewhere
from .convert import Converted
from .settings import Sbom

_SOURCE = "/run/src"
_OUT = "/run/out/"
_CORE = "sbom"
_SPDX = "https://spdx.dev/Document"


class Scanner:
    """The scanner of one build."""

    def __init__(self, client: Client, sbom: Sbom, platform: Platform, mode: str) -> None:
        """Resolves the scanner's image. Raises BridgeError, and SourceError for an image that has no process."""
        self._client = client
        self._parameters = sbom.parameters
        self._platform = platform
        try:
            found = client.image(sbom.generator, platform, mode, f"[internal] load metadata for {sbom.generator}")
        except ResolvedElsewhere as moved:
            raise SourceError(str(moved)) from None
        self._reference = found.reference
        try:
            config = json.loads(found.config).get("config") or {}
            self._args = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
            self._env = list(config.get("Env") or ())
            self._dir = config.get("WorkingDir") or "/"
        except (ValueError, AttributeError, TypeError) as error:
            raise SourceError(f"scanner {sbom.generator}: not an image config: {error}") from None
        if not self._args:
            raise SourceError(f"scanner {sbom.generator} does not have cmd")

    def scan(self, name: str, converted: Converted) -> gateway_pb2.Attestation:
        """The attestation of one platform's result. Raises BridgeError, CapError."""
        ref = self._client.solve_one(marshal(self._process(name, converted).output))
        attestation = gateway_pb2.Attestation(kind=gateway_pb2.Bundle, inTotoPredicateType=_SPDX)
        attestation.metadata["reason"] = b"sbom"
        attestation.metadata["sbom-core"] = _CORE.encode()
        attestation.ref.id = ref
        return attestation

    def _process(self, name: str, converted: Converted) -> State:
        image = source(f"docker-image://{self._reference}", platform=self._platform, wanted=[caps.SOURCE_IMAGE])
        state = image.with_dir(self._dir)
        env = [*self._env, f"BUILDKIT_SCAN_DESTINATION={_OUT}", f"BUILDKIT_SCAN_SOURCE={_SOURCE}/core/{_CORE}"]
        if converted.extras:
            env.append(f"BUILDKIT_SCAN_SOURCE_EXTRAS={_SOURCE}/extras")
        env += [f"BUILDKIT_SCAN_{key}={value}" for key, value in sorted(self._parameters.items())]
        for entry in env:
            key, _, value = entry.partition("=")
            state = state.with_env(key, value)
        mounts = [self._temporary(image), RunMount(f"{_SOURCE}/core/{_CORE}", converted.output, readonly=True)]
        mounts += [
            RunMount(f"{_SOURCE}/extras/{_CORE}-{key}", output, readonly=True)
            for key, output in sorted(converted.extras.items())
        ]
        mounts.append(RunMount(_OUT))
        return state.run(
            self._args,
            mounts=mounts,
            notes=Notes(f"[{name}] generating sbom using {self._reference}", ignore_cache=converted.ignore_cache),
            result_of=_OUT,
            known=self._client.llb_caps,
        )

    def _temporary(self, image: State) -> RunMount:
        if self._platform.os != "windows":
            return RunMount("/tmp", tmpfs=True)
        made = image.file([MkDir("/tmp", 0o777, make_parents=True)])
        return RunMount("/tmp", made.output, selector="/tmp", no_output=True)
