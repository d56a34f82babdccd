"""EXPOSE: the ports that the image listens on."""

import ipaddress
import re
from dataclasses import dataclass

from ....grammar.dockerfile.tree import Instruction
from ....grammar.dockerfile.words import Words
from ...lint.linter import Linter
from ...lint.rules import expose_invalid_format, expose_proto_casing
from ..arity import at_least_one
from ..command import Command, Dispatch
from ..errors import fail
from ..flags import Flags
from ..gotext import plain_list

_NUMBER = re.compile(r"[+-]?[0-9]+\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Expose(Command):
    """EXPOSE port …, sorted as text."""

    ports: tuple[str, ...]


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    ports = at_least_one(node)
    Flags(node, {})
    return Expose(node, tuple(sorted(ports, key=str.encode)))


def apply(command: Expose, dispatch: Dispatch) -> None:
    """Declare the ports."""
    words = Words(dispatch.escape)
    given = [w for port in command.ports for w in words.expand(port, dispatch.stage.state.env).words]
    ports = [port for text in given for port in _ports(text, dispatch)]
    dispatch.stage.image.config.exposed_ports.update((port, {}) for port in ports)
    dispatch.commit(f"EXPOSE {plain_list(ports)}")


def _ports(text: str, dispatch: Dispatch) -> list[str]:
    parts = text.split(":")
    container = parts[-1]
    published = parts[-2] if len(parts) > 1 else ""
    address = ":".join(parts[:-2])
    port, _, protocol = container.partition("/")
    if not port:
        raise fail(dispatch.node, f"invalid port: {text!r}: no port specified")
    if protocol.lower() not in ("", "tcp", "udp", "sctp"):
        raise fail(dispatch.node, f"invalid protocol {protocol!r} in {text!r}", "tcp, udp and sctp are known")
    if protocol != protocol.lower():
        dispatch.warn(expose_proto_casing.RULE, expose_proto_casing.message(text))
    if address or published:
        dispatch.warn(expose_invalid_format.RULE, expose_invalid_format.message(text))
    if address:
        bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
        try:
            ipaddress.ip_address(bare)
        except ValueError:
            raise fail(dispatch.node, f"invalid IP address: {bare}") from None
    first, last = _range(port, text, dispatch)
    if published:
        host_first, host_last = _range(published, text, dispatch)
        if host_last - host_first != last - first and last != first:
            raise fail(dispatch.node, f"invalid ranges for container and host ports: {port} and {published}")
    return [f"{number}/{protocol.lower() or 'tcp'}" for number in range(first, last + 1)]


def _range(ports: str, text: str, dispatch: Dispatch) -> tuple[int, int]:
    start, dash, end = ports.partition("-")
    first = _number(start, text, dispatch)
    last = _number(end, text, dispatch) if dash and start != end else first
    if last < first:
        raise fail(dispatch.node, f"invalid port range: {ports}", "the first port must not be above the last")
    return first, last


def _number(port: str, text: str, dispatch: Dispatch) -> int:
    if not _NUMBER.match(port) or not 0 <= int(port) <= 65535:
        raise fail(dispatch.node, f"invalid port {port!r} in {text!r}", "a port is a number from 0 to 65535")
    return int(port)
