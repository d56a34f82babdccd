"""The `--device` flag of RUN."""

from ...grammar.dockerfile.tree import Flag, Instruction
from ...llb.ops import CDIDevice
from .errors import DockerfileError, did_you_mean, fail
from .mounts import boolean, fields

_KEYS = ("name", "required")


def parse_device(node: Instruction, flag: Flag | None, text: str) -> CDIDevice:
    """One device, in the Container Device Interface's form: `vendor.com/class=name`, `required` if asked for.

    Raises:
        DockerfileError: for keys or values that are none.
    """

    def wrong(message: str, hint: str = "") -> DockerfileError:
        return fail(node, message, hint, flag)

    try:
        parts = fields(text)
    except ValueError as error:
        raise wrong(f"failed to parse the device {text!r}: {error}") from None
    name, required = "", False
    for part in parts:
        key, equals, value = part.partition("=")
        key = key.lower()
        if key == "required":
            found = boolean(value) if equals else True
            if found is None:
                raise wrong(f"invalid value for {key}: {value}", "write true or false")
            required = found
        elif equals and key == "name":
            if name:
                raise wrong(f"device name already set to {name}")
            name = value
        elif not name:
            name = part
        elif not equals:
            raise wrong(f"invalid field {part!r}: it must be a key=value pair")
        else:
            raise wrong(f"unexpected key {key!r} in {part!r}", did_you_mean(key, _KEYS))
    return CDIDevice(name, optional=not required)
