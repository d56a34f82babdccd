"""The images that were built here under a name (exporter `image`): what `FROM` may use without a registry.

Items of kind `image` have the key `name:REFERENCE`; their values name every blob, so that none of them is dropped.
"""

import json
from collections.abc import Sequence

from ..oci.reference import Reference
from .base import Context


def find_image(reference: Reference, context: Context) -> str | None:
    """The digest of the image that was built under a name, where all of its content is still there."""
    data = context.cache.get_value("image", f"name:{reference.tag_name_only()}")
    if data is None:
        return None
    digests: list[str] = json.loads(data)
    return digests[0] if all(context.content.has(digest) for digest in digests) else None


def name_image(reference: Reference, digests: Sequence[str], context: Context) -> None:
    """Give an image a name; `digests` are that of its manifest or index and then of all that it leads to."""
    value = json.dumps(list(dict.fromkeys(digests))).encode()
    context.cache.set_value("image", f"name:{reference.tag_name_only()}", value)
