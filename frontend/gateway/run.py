"""One run of the frontend container: read the environment, build, return the result or the error."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from ...grammar.errors import SourceError
from ...llb.bridge import BridgeError, FrontendCall
from ...llb.caps import CapError
from ...wire.errors import INTERNAL
from ...wire.h2.client import Caller
from ...wire.pb import caps_pb2, gateway_pb2
from . import caps
from .bridge import ConnectedBridge
from .stdio import connect

_OPT = "BUILDKIT_FRONTEND_OPT_"
_SWITCH = 0.0002
"""Seconds that a thread computes while another wants to."""


def options(environ: Mapping[str, str]) -> dict[str, str]:
    """The frontend options: the values of BUILDKIT_FRONTEND_OPT_0 and so on, each `key=value`."""
    out = {}
    for name, value in environ.items():
        if name.startswith(_OPT):
            key, _, text = value.partition("=")
            out[key] = text
    return out


class _Gateway(ConnectedBridge):
    """The bridge, with what the environment says where the answers of an old gateway lack it."""

    def __init__(self, caller: Caller, workers: str) -> None:
        super().__init__(caller)
        self._workers = workers
        self.caps: frozenset[str] = frozenset()

    def ping(self) -> gateway_pb2.PongResponse:
        pong = super().ping()
        announced: list[caps_pb2.APICap] = list(pong.FrontendAPICaps)
        self.caps = frozenset(cap.ID for cap in announced if cap.Enabled) if announced else caps.FIRST
        if not pong.Workers and self._workers:
            for worker in json.loads(self._workers) or ():
                added = pong.Workers.add()
                for platform in worker.get("Platforms") or ():
                    added.platforms.add(
                        OS=platform.get("os", ""),
                        Architecture=platform.get("architecture", ""),
                        Variant=platform.get("variant", ""),
                    )
        return pong

    def finish(self, result: gateway_pb2.Result) -> None:
        """Return a result in the form that the gateway knows."""
        if caps.RETURN in self.caps:
            if caps.REF_ARRAY not in self.caps:
                _to_old_form(result)
            self.give_back(gateway_pb2.ReturnRequest(result=result))
            return
        ref = result.refDeprecated or result.ref.id
        final = gateway_pb2.SolveRequest()
        final.Definition.SetInParent()
        final.CopyFrom(self.requests.get(ref, final))
        final.Final = True
        final.ExporterAttr = json.dumps({k: _base64(v) for k, v in result.metadata.items()}).encode()
        self.solve(final)


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def _to_old_form(result: gateway_pb2.Result) -> None:
    """Refs as plain texts, as gateways before arrays of refs have them."""
    kind = result.WhichOneof("result")
    if kind == "ref":
        result.refDeprecated = result.ref.id
    elif kind == "refs":
        refs = {name: ref.id for name, ref in result.refs.refs.items()}
        result.refsDeprecated.refs.update(refs)


def main() -> int:
    """Build what the environment asks for. The exit code is 0 unless the other side can't be told what went wrong."""
    # What is printed by mistake must not get into the connection.
    writer = os.dup(1)
    os.dup2(2, 1)
    gateway = _Gateway(connect(0, writer), os.environ.get("BUILDKIT_WORKERS", ""))
    call = FrontendCall(options(os.environ), os.environ.get("BUILDKIT_SESSION_ID", ""))
    try:
        gateway.finish(_build(gateway, call))
    except (SourceError, BridgeError, CapError) as error:
        return _fail(gateway, error)
    except Exception as error:
        return _fail(gateway, BridgeError(f"the frontend has a fault: {_place(error)}", INTERNAL))
    return 0


def _place(error: Exception) -> str:
    """A fault in a line, for whoever reports it: what it is, and in which module and line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" in {trace.tb_frame.f_globals.get('__name__')}, line {trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__name__}: {error}{where}"


def _build(gateway: _Gateway, call: FrontendCall) -> gateway_pb2.Result:
    """What converts the file is imported while the other side fetches the file."""
    from ..dockerfile.begin import Begun, begin
    from .together import together

    # Who waits for an answer should not have to wait for the modules, too.
    sys.setswitchinterval(_SWITCH)
    converter: list[Callable[[Begun, Sequence[str]], gateway_pb2.Result]] = []

    def load() -> None:
        from ..dockerfile.frontend import build

        converter.append(build)

    begun: list[Begun] = []
    together([lambda: begun.append(begin(gateway, call)), load])
    return converter[0](begun[0], ())


def _fail(gateway: _Gateway, error: Exception) -> int:
    from .status import status_of

    if caps.RETURN not in gateway.caps:
        os.write(2, f"{error}\n".encode())
        return 1
    try:
        gateway.give_back(gateway_pb2.ReturnRequest(error=status_of(error)))
    except BridgeError as gone:
        os.write(2, f"{error}\n{gone}\n".encode())
        return 1
    return 0
