"""The sources of a Dockerfile build that the client holds: its folders."""

from collections.abc import Sequence

from ...llb import caps
from ...llb.state import Notes, State, source


def local(
    name: str,
    session: str,
    *,
    follow: Sequence[str] = (),
    exclude: Sequence[str] = (),
    hint: str = "",
    differ: str = "",
    shown: str = "",
) -> State:
    """A folder of the client's, or the part of it that `follow` names and `exclude` leaves; `hint` marks what later
    builds have in common. With `differ` "none" all of it is sent each time."""
    attrs = {"local.session": session} if session else {}
    wanted = [caps.SOURCE_LOCAL] + ([caps.SOURCE_LOCAL_SESSION_ID] if session else [])
    if follow:
        attrs["local.followpaths"] = _go_list(follow)
        wanted.append(caps.SOURCE_LOCAL_FOLLOW_PATHS)
    if exclude:
        attrs["local.excludepatterns"] = _go_list(exclude)
        wanted.append(caps.SOURCE_LOCAL_EXCLUDE_PATTERNS)
    if hint:
        attrs["local.sharedkeyhint"] = hint
        wanted.append(caps.SOURCE_LOCAL_SHARED_KEY_HINT)
    if differ:
        attrs["local.differ"] = differ
    return source(f"local://{name}", attrs, wanted=wanted, notes=Notes(shown))


def _go_list(items: Sequence[str]) -> str:
    from .gojson import dumps

    return dumps(list(items)).decode()
