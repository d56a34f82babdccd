"""How a build begins: what the other side can do, what the options say, and the file.

Nothing more is imported for it, so that a frontend container can ask while it still loads what converts the file.
"""

from dataclasses import dataclass

from ...llb.bridge import Bridge, BridgeError, FrontendCall
from ...llb.marshal import SourceFile
from ..gateway.client import UNIMPLEMENTED, Client
from .context import BuildContext
from .settings import Settings, read_settings

CAPS = frozenset(
    {
        "moby.buildkit.frontend.inputs",
        "moby.buildkit.frontend.subrequests",
        "moby.buildkit.frontend.contexts",
        "moby.buildkit.frontend.gitquerystring",
    }
)
"""What clients may ask of this frontend (the option `frontend.caps`)."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A build whose file is read. `vertex` is the digest of what the file came from, `missing` a capability that the
    client asks for in vain, where another frontend may have it."""

    client: Client
    settings: Settings
    context: BuildContext
    file: SourceFile
    vertex: str
    missing: str = ""


def begin(bridge: Bridge, call: FrontendCall) -> Begun:
    """Ask what there is to ask before anything is converted.

    Raises:
        SourceError: for what is wrong in the options, and where there is no file.
        BridgeError, CapError: for a call that failed, and for what the solver can't do.
    """
    client = Client(bridge, call)
    settings = read_settings(client.opts)
    missing, forwards = _missing_caps(client.opts.get("frontend.caps", ""))
    if missing and not forwards:
        raise unsupported(missing)
    context = BuildContext(client)
    file, vertex = context.read_dockerfile()
    return Begun(client, settings, context, file, vertex, missing)


def _missing_caps(wanted: str) -> tuple[str, bool]:
    """The first capability that clients ask for in vain, and whether handing over to another frontend may help."""
    missing, forwards = "", False
    for text in filter(None, wanted.split(",")):
        name, _, _ = text.partition("+")
        if name not in CAPS:
            missing = missing or name
            if "+forward" not in text:
                return name, False
            forwards = True
    return missing, forwards


def unsupported(cap: str) -> BridgeError:
    """What a client is told that asks for a capability in vain."""
    from ...wire.errors import make_status
    from ...wire.pb import errdefs_pb2

    text = f"unsupported frontend capability {cap}"
    status = make_status(UNIMPLEMENTED, text, [errdefs_pb2.FrontendCap(name=cap)])
    return BridgeError(text, UNIMPLEMENTED, status.SerializeToString())
