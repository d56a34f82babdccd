"""Our frontend image, made from what is on this machine: Python as a base image, the packages of this environment."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from engine import Engine

ROOT = Path(__file__).parents[2]
PACKAGES = ("google", "hpack", "jinja2", "lark", "markupsafe")


def sources(folder: Path) -> tuple[str, ...]:
    """The flags of a build that stand for what Dockerfile.frontend would fetch, with their files in `folder`."""
    make = [sys.executable, "-m", "brickyard", "base", "make", "--with", "python", folder / "base"]
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in PACKAGES:
        shutil.copytree(Path(sysconfig.get_path("purelib")) / name, folder / "packages" / name)
    base, packages = f"base=oci-layout://{folder}/base:latest", f"packages={folder}/packages"
    return ("-f", str(ROOT / "Dockerfile.frontend"), "--build-context", base, "--build-context", packages)


def pushed(engine: Engine, registry: str, flags: tuple[str, ...]) -> str:
    """Build it with Docker and push it to a registry; gives its reference."""
    reference = f"{registry}/brickyard/frontend:test"
    engine.buildx("build", *flags, "--provenance=false", "--push", "-t", reference, ROOT)
    return reference
