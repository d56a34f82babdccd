"""Exporter `docker`: the archive that `docker load` takes, an OCI image layout with Docker's own list of images."""

from collections.abc import Mapping

from ..base import Context, Exportable, SolveError
from .oci import export_layout
from .writer import is_multi


def export(result: Exportable, id: str, attrs: Mapping[str, str], context: Context) -> dict[str, str]:
    """Make the image and send it to the client.

    Raises:
        SolveError: for options that make no sense, for several platforms, and where the archive cannot be written.
    """
    if is_multi(result):
        raise SolveError("the docker exporter does not support several platforms: use type=oci, or build one")
    return export_layout(result, id, attrs, context, docker=True)
