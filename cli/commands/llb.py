"""`brickyard llb dump`."""

from ..engine import ROOT, open_solver
from ..flags import Command, Flag, Parsed, UsageError
from . import COMMANDS, build

FORMS = ("text", "json", "dot")
_SHARED = (
    "add-host", "build-arg", "build-context", "cgroup-parent", "file", "label", "network", "no-cache",
    "no-cache-filter", "platform", "pull", "shm-size", "target", "ulimit",
)  # fmt: skip

COMMAND = Command(
    "llb",
    COMMANDS["llb"],
    (
        *(flag for flag in build.COMMAND.flags if flag.name in _SHARED),
        Flag("form", "text, json or dot (for Graphviz)", metavar="form"),
        ROOT,
    ),
    arguments="dump CONTEXT",
    required=2,
    most=2,
    notes="Reads the Dockerfile and looks up its images as a build would, but runs nothing.",
)


def run(parsed: Parsed) -> int:
    """Print the graph."""
    action = parsed.arguments.pop(0)
    form = parsed.text("form", "text")
    if action != "dump":
        raise UsageError(f"brickyard llb: there is no {action!r}", "write brickyard llb dump CONTEXT")
    if form not in FORMS:
        raise UsageError(f"--form {form}: write {', '.join(FORMS)}")
    options = build.options_of(parsed)
    from ...client.build import definition
    from ...llb.dump import dump

    with open_solver(parsed) as solver:
        graph = definition(solver, options)
    print(dump(graph, form))
    return 0
