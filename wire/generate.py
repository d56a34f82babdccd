"""Regenerate `wire/pb` from `wire/proto`: `make proto` (needs grpcio-tools, from the `dev` extra).

The generated modules register in a descriptor pool of their own (`wire/pb/pool.py`): BuildKit's packages have names
as short as `pb` and `stack`, which would clash in the default pool with any other module that defines them.
"""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

ROOM = Path(__file__).resolve().parent
ROOT = ROOM.parent
VIRTUAL = "brickyard/wire/pb"


def generate() -> None:
    """Run protoc over every `.proto` file and point the results at the private pool."""
    out = ROOM / "pb"
    for old in out.glob("*_pb2*"):
        old.unlink()
    protos = sorted(p.name for p in (ROOM / "proto").glob("*.proto"))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{VIRTUAL}={ROOM / 'proto'}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--python_out={ROOT}",
            f"--pyi_out={ROOT}",
            *(f"{VIRTUAL}/{name}" for name in protos),
        ],
        check=True,
        cwd=ROOT,
    )
    for module in out.glob("*_pb2.py"):
        text = module.read_text()
        text = text.replace("from google.protobuf import descriptor_pool as _descriptor_pool\n", "")
        text = text.replace("_descriptor_pool.Default()", "_POOL")
        text = text.replace(
            "# @@protoc_insertion_point(imports)\n",
            "from .pool import POOL as _POOL\n# @@protoc_insertion_point(imports)\n",
        )
        module.write_text(text)


if __name__ == "__main__":
    generate()
