"""The capabilities of ops (BuildKit's solver/pb/caps.go) that this solver announces, and checks in what it is given."""

from ..llb import caps

_UNSUPPORTED = frozenset(
    {
        caps.SOURCE_GIT_SIGNATURE_VERIFY,
        caps.SOURCE_GIT_BUNDLE,
        caps.SOURCE_GIT_CHECKOUT_BUNDLE,
        caps.SOURCE_HTTP_SIGNATURE_VERIFY,
        caps.SOURCE_IMAGE_BLOB,
        caps.EXEC_META_NETWORK_PROXY,
        caps.EXEC_META_CDI,
        caps.EXEC_META_SECURITY_DEVICES,
    }
)
"""What BuildKit's ops can ask for and ours are not able to."""
_BESIDE_OPS = (
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.sourcedateepoch",
    "exporter.multiple",
    "source.policy",
    "gc.freespacefilter",
)
"""Capabilities that BuildKit announces among those of ops, though they are about other things."""

SUPPORTED = (caps.KNOWN - _UNSUPPORTED) | set(_BESIDE_OPS)
"""The capabilities of ops that are supported."""
