"""The configuration's registries as options for the registry client."""

from collections.abc import Mapping
from pathlib import Path

from ...oci.transport import HostOptions
from .config import Registry


def registry_hosts(registries: Mapping[str, Registry]) -> dict[str, HostOptions]:
    """Options by host. `insecure` with `http` unset tries TLS with any certificate, as BuildKit does."""
    return {host: _options(found) for host, found in registries.items()}


def _options(found: Registry) -> HostOptions:
    authorities = [Path(path) for path in found.ca]
    pairs = [(Path(pair.cert), Path(pair.key)) for pair in found.keypair if pair.cert and pair.key]
    for folder in found.tls_config_dir:
        # As Docker's certs.d: authorities end in .crt, clients' certificates in .cert with their .key beside.
        authorities += sorted(Path(folder).glob("*.crt"))
        pairs += [(path, path.with_suffix(".key")) for path in sorted(Path(folder).glob("*.cert"))]
    # Who names certificates means TLS, on this machine too.
    plain = False if found.http is None and (authorities or pairs) else found.http
    return HostOptions(
        plain_http=plain,
        skip_verify=bool(found.insecure),
        ca=tuple(authorities),
        client_cert=pairs[0] if pairs else None,
        mirrors=tuple(found.mirrors),
    )
