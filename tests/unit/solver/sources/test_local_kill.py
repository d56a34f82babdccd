"""Transfers that are killed at any moment: what is there afterwards is whole, and the next one is right."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from brickyard.llb.ops import SourceOp
from brickyard.solver.localsync.index import Indexes
from brickyard.solver.snapshots.store import Snapshots
from brickyard.solver.sources import local

_BUILDS = textwrap.dedent(
    """
    import os, sys, threading
    from pathlib import Path
    from brickyard.client.inputs import Inputs
    from brickyard.client.outputs import Outputs
    from brickyard.client.secrets import Secrets
    from brickyard.client.session import LocalSession
    from brickyard.llb.ops import SourceOp
    from brickyard.solver.base import Context
    from brickyard.solver.snapshots.leases import Leases
    from brickyard.solver.snapshots.store import Snapshots
    from brickyard.solver.sources import local

    root, folder, start = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    snapshots = Snapshots(root)
    print("ready", flush=True)
    number = start
    while True:
        number += 1
        for name in range(300):
            if name % 50 == number % 50 or not (folder / f"d{name % 9}/{name}").exists():
                place = folder / f"d{name % 9}/{name}"
                place.parent.mkdir(exist_ok=True)
                place.write_text(f"{name} {number}" * (name + 1))
                os.utime(place, (number, number))
        session = LocalSession(Inputs(dirs={"context": folder}), Outputs((), None), Secrets(()), {})
        context = Context(root, session, snapshots, None, None, None, threading.Event(), Leases(snapshots))
        local.cache_key(SourceOp("local://context"), None, context)
        print(number, flush=True)
    """
)


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_killed_transfers(yard, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from brickyard.client.inputs import Inputs
    from brickyard.client.outputs import Outputs
    from brickyard.client.secrets import Secrets
    from brickyard.client.session import LocalSession

    folder, root = tmp_path / "ctx", yard.context.root
    folder.mkdir()
    chance = random.Random(7)
    for attempt in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", _BUILDS, str(root), str(folder), str(attempt * 1000)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        # The folder as the killed build's client left it is what the next build must show.
        before = files(folder)
        snapshots = yard.context.snapshots = Snapshots(root)
        kept = [entry.snapshot for entry in Indexes(root).usage()]
        assert all(snapshots.exists(name) for name in kept)
        yard.context.leases = type(yard.context.leases)(snapshots)
        yard.context.session = LocalSession(Inputs(dirs={"context": folder}), Outputs((), None), Secrets(()), {})  # type: ignore[arg-type]
        result = local.snapshot(SourceOp("local://context"), None, yard.context)
        assert result.snapshot is not None
        assert files(snapshots.own_files(result.snapshot)) == before
