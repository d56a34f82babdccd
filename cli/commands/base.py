"""`brickyard base make`."""

from pathlib import Path
from typing import cast

from ..flags import Command, Flag, Parsed, UsageError
from . import COMMANDS

COMMAND = Command(
    "base",
    COMMANDS["base"],
    (
        Flag("from", "busybox or host (default: busybox where it is installed, else host)"),
        Flag("with", "python: an interpreter with its standard library beside the shell"),
        Flag("python", "The interpreter for --with python (default: the system's python3)", metavar="path"),
        Flag("tag", "The image's tag in the layout (default latest)", short="t"),
    ),
    arguments="make DIR",
    required=2,
    most=2,
    notes="""\
Makes an OCI image layout in DIR out of busybox, or of this machine's shell and tools with the libraries they load.
Nothing is downloaded, and the same programs always give the same digest. Use it as a named context:

    brickyard base make base
    brickyard build --build-context base=oci-layout://base .     # FROM base

With --with python it has the machine's Python too, for the frontend image for example.""",
)


def run(parsed: Parsed) -> int:
    """Make the layout, and print the image's digest."""
    action, folder = parsed.arguments
    source = parsed.text("from")
    if action != "make":
        raise UsageError(f"brickyard base: there is no {action!r}", "write brickyard base make DIR")
    if source not in ("", "busybox", "host"):
        raise UsageError(f"--from {source}: write busybox or host")
    extra, interpreter = parsed.text("with"), parsed.text("python")
    if extra not in ("", "python"):
        raise UsageError(f"--with {extra}: write python")
    from ...client.base.image import Source, make
    from ...client.layouts import is_tag
    from ..table import human_size

    if not is_tag(parsed.text("tag", "latest")):
        raise UsageError(f"--tag {parsed.text('tag')}: a tag has letters, digits, '_', '.' and '-'")
    made = make(
        Path(folder),
        cast(Source, source) if source else None,
        parsed.text("tag", "latest"),
        python=extra == "python",
        interpreter=Path(interpreter) if interpreter else None,
    )
    print(f"{folder}: {made.digest} ({human_size(made.size)}, from {made.source})")
    return 0
