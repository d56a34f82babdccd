"""The little languages in flag values: `type=local,dest=out`, `id=key,src=file`, `nofile=1024:2048`, `64m`, `24h`."""

import csv
import os
import re
from collections.abc import Mapping
from pathlib import Path

from ..client.options import STDIN, Agent, Output, Secret
from .flags import UsageError, boolean, closest

_EXPORTERS = ("local", "tar", "oci", "docker", "image", "registry", "cacheonly")
_ENTITLEMENTS = ("network.host", "security.insecure", "device", "buildx.local.delete")
_LIMIT_NAMES = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
_RLIMITS = _LIMIT_NAMES.split()
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp])?(?:i?b)?", re.IGNORECASE)
_UNITS = " kmgtp"
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
_ANNOTATION_TYPE = re.compile(r"([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?")
_ANNOTATION_TYPES = ("index", "index-descriptor", "manifest", "manifest-descriptor")


def fields(text: str, flag: str) -> list[tuple[str, str]]:
    """The `key=value` fields of a value, quoted as in a CSV line; keys in lower case."""
    found = []
    for part in next(csv.reader([text], strict=False), []):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"--{flag} {text}: {part!r} is no key=value pair")
        found.append((key.strip().lower(), value))
    return found


def pairs(values: list[str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """`NAME=VALUE` texts; a bare NAME takes its value from `environ` (left out where it has none), or is empty."""
    found = {}
    for text in values:
        name, equals, value = text.partition("=")
        if equals or environ is None:
            found[name] = value
        elif name in environ:
            found[name] = environ[name]
    return found


def secret(text: str) -> Secret:
    """`id=NAME[,src=FILE|env=VARIABLE]`."""
    id, path, env, kind = "", "", "", ""
    for key, value in fields(text, "secret"):
        if key == "id":
            id = value
        elif key in ("src", "source"):
            path = value
        elif key == "env":
            env = value
        elif key == "type" and value in ("file", "env"):
            kind = value
        elif key == "type":
            raise UsageError(f"--secret {text}: the type is file or env, not {value!r}")
        else:
            raise UsageError(f"--secret {text}: unknown key {key!r}", _near(key, ["id", "src", "env", "type"]))
    if not id:
        raise UsageError(f"--secret {text}: the id is missing", "write --secret id=NAME,src=FILE")
    if kind == "env" and not env:
        env, path = path or id, ""
    if kind == "file" and not env:
        path = path or id
    if env and path:
        raise UsageError(f"--secret {text}: src and env exclude each other")
    return Secret(id, Path(path).expanduser() if path else None, env)


def ssh(text: str, environ: Mapping[str, str] = os.environ) -> tuple[str, Agent]:
    """`default`, `ID[=SOCKET|KEY[,KEY…]]` or `ID=SOCKET,raw=true`: the id, and the agent's socket or key files."""
    id, _, rest = text.partition("=")
    raw, paths = False, []
    for part in rest.split(",") if rest else []:
        name, equals, value = part.partition("=")
        if equals and name == "raw":
            if boolean(value) is None:
                raise UsageError(f"--ssh {text}: raw is true or false, not {value!r}")
            raw = boolean(value) is True
        elif part:
            paths.append(Path(part).expanduser())
    if not paths:
        given = environ.get("SSH_AUTH_SOCK", "")
        if not given:
            raise UsageError(
                f"--ssh {text}: no agent runs ($SSH_AUTH_SOCK is not set)",
                "start ssh-agent, or name a socket or key files",
            )
        paths = [Path(given)]
    for path in paths:
        if not path.exists():
            raise UsageError(f"--ssh {text}: {path} is not there")
    return id or "default", Agent(tuple(paths), raw)


def output(text: str) -> Output:
    """`type=…,dest=…,key=value…`, a folder alone (`type=local`), or `-` (a tar on standard output)."""
    if text == STDIN:
        return Output("tar", STDIN)
    if not text:
        raise UsageError("--output needs a value", "write a folder, or type=local|tar|oci|docker|image|registry")
    if "=" not in text and "," not in text:
        return Output("local", text)
    attrs = dict(fields(text, "output"))
    kind, dest = attrs.pop("type", ""), attrs.pop("dest", "")
    if not kind:
        raise UsageError(f"--output {text}: the type is missing", "write type=local|tar|oci|docker|image|registry")
    if kind not in _EXPORTERS:
        known = _near(kind, list(_EXPORTERS)) or f"write type={'|'.join(_EXPORTERS)}"
        raise UsageError(f"--output {text}: there is no exporter {kind!r}", known)
    if kind == "registry":
        kind, attrs = "image", {"unpack": "false", **attrs, "push": "true"}
    for key in ("tar", "push"):
        if key in attrs and boolean(attrs[key]) is None:
            raise UsageError(f"--output {text}: {key} is true or false")
    made = Output(kind, dest, attrs)
    if made.is_folder and not dest:
        raise UsageError(f"--output {text}: dest=FOLDER is missing")
    if made.is_folder and dest == STDIN:
        tar = "write type=tar" if kind == "local" else "leave tar=false out"
        raise UsageError(f"--output {text}: a folder cannot go to standard output", tar)
    return Output(kind, STDIN, attrs) if kind in ("tar", "oci") and made.is_file and not dest else made


def attestation(text: str, flag: str) -> tuple[str, str] | None:
    """`type=sbom|provenance[,key=value…]`: the kind and its attributes as text; None where it is switched off."""
    attrs = dict(fields(text, flag))
    kind = attrs.pop("type", "")
    if kind not in ("sbom", "provenance"):
        raise UsageError(f"--{flag} {text}: the type is sbom or provenance, not {kind!r}")
    disabled = boolean(attrs.pop("disabled", "false"))
    if disabled is None:
        raise UsageError(f"--{flag} {text}: disabled is true or false")
    return None if disabled else (kind, ",".join(f"{key}={value}" for key, value in attrs.items()))


def switched_attestation(kind: str, text: str) -> tuple[str, str] | None:
    """The value of `--sbom` and `--provenance`: true, false, or attributes."""
    truth = boolean(text)
    if truth is None:
        return attestation(f"type={kind},{text}", kind)
    return (kind, "") if truth else None


def cache(text: str, flag: str) -> tuple[str, dict[str, str]]:
    """`type=registry|local|inline,…`, or an image's name alone (`type=registry,ref=NAME`)."""
    if "=" not in text:
        return "registry", {"ref": text}
    attrs = dict(fields(text, flag))
    kind = attrs.pop("type", "")
    if not kind:
        raise UsageError(f"--{flag} {text}: the type is missing", "write type=registry, local or inline")
    if kind not in ("registry", "local", "inline"):
        raise UsageError(
            f"--{flag} {text}: cache of type {kind!r} is not supported", _near(kind, ["registry", "local"])
        )
    return kind, attrs


def named_context(text: str) -> tuple[str, str]:
    """`NAME=PATH|oci-layout://PATH|docker-image://REF`; the name is in the short form that Dockerfiles use."""
    from ..oci.reference import InvalidReference, parse

    name, equals, value = text.partition("=")
    if not equals or not value:
        raise UsageError(f"--build-context {text}: write NAME=PATH")
    try:
        return parse(name).familiar.removesuffix(":latest"), value
    except InvalidReference as error:
        raise UsageError(f"--build-context {text}: {error}") from error


def tag(text: str) -> str:
    """An image name, in its full form."""
    from ..oci.reference import InvalidReference, parse

    try:
        return str(parse(text).tag_name_only())
    except InvalidReference as error:
        raise UsageError(f"--tag {text}: {error}") from error


def platforms(values: list[str]) -> list[str]:
    """Platforms in their normal form; each value may hold several, with commas."""
    from ..oci.platform import PlatformError, format_all, host, parse

    found = []
    for text in (part.strip() for value in values if value for part in value.split(",")):
        try:
            found.append(format_all(host() if text == "local" else parse(text)))
        except PlatformError as error:
            raise UsageError(f"--platform {text}: {error}") from error
    return list(dict.fromkeys(found))


def annotation(text: str) -> dict[str, str]:
    """`[TYPE[,TYPE][PLATFORM]:]KEY=VALUE`, as exporter attributes."""
    left, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--annotation {text}: write KEY=VALUE")
    types, colon, key = left.partition(":")
    if not colon:
        return {f"annotation.{left}": value}
    found = {}
    for part in types.split(","):
        match = _ANNOTATION_TYPE.fullmatch(part)
        if match is None or match[1] not in _ANNOTATION_TYPES:
            raise UsageError(f"--annotation {text}: the type is one of {', '.join(_ANNOTATION_TYPES)}")
        where = f"[{match[2]}]" if match[2] else ""
        found[f"annotation-{match[1]}{where}.{key}"] = value
    return found


def size(text: str, flag: str) -> int:
    """A number of bytes: `64m`, `1.5g`, `512`; units are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--{flag} {text}: write a number of bytes, such as 64m or 1g")
    return int(float(match[1]) * 1024 ** _UNITS.index((match[2] or " ").lower()))


def duration(text: str, flag: str) -> int:
    """A length of time as Go writes it (`24h`, `1h30m`), in nanoseconds."""
    matches = list(_DURATION.finditer(text))
    if not matches or "".join(match[0] for match in matches) != text:
        raise UsageError(f"--{flag} {text}: write a length of time, such as 24h or 90m")
    return int(sum(float(match[1]) * _NANOSECONDS[match[2]] for match in matches))


def add_host(text: str) -> str:
    """`NAME=ADDRESS`, or docker's older `NAME:ADDRESS`, as it is."""
    from ipaddress import ip_address

    name, _, addresses = text.partition("=" if "=" in text else ":")
    try:
        for address in addresses.split(","):
            ip_address(address.strip("[]"))
    except ValueError:
        name = ""
    if not name:
        raise UsageError(f"--add-host {text}: write NAME=ADDRESS")
    return text


def entitlement(text: str) -> str:
    """The name of a privilege, as it is."""
    name = text.partition("=")[0]
    if name not in _ENTITLEMENTS:
        known = _near(name, list(_ENTITLEMENTS)) or f"known are {', '.join(_ENTITLEMENTS)}"
        raise UsageError(f"--allow {text}: there is no such privilege", known)
    return text


def ulimit(text: str) -> str:
    """`NAME=SOFT[:HARD]`, with both limits written out."""
    name, _, limits = text.partition("=")
    soft, colon, hard = limits.partition(":")
    if name not in _RLIMITS:
        raise UsageError(f"--ulimit {text}: there is no limit {name!r}", _near(name, _RLIMITS))
    try:
        low, high = int(soft), int(hard if colon else soft)
    except ValueError:
        raise UsageError(f"--ulimit {text}: write {name}=SOFT:HARD with numbers") from None
    if high != -1 and (low == -1 or low > high):
        raise UsageError(f"--ulimit {text}: the soft limit is above the hard one")
    return f"{name}={low}:{high}"


def _near(word: str, known: list[str]) -> str:
    near = closest(word, known)
    return f"did you mean {near!r}?" if near else ""
