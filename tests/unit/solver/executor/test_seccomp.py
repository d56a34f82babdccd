"""The seccomp profile in both of its forms; the program is run by a small interpreter of classic BPF."""

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.solver.executor.bpf import assemble
from brickyard.solver.executor.confinement import CAPABILITIES
from brickyard.solver.executor.seccomp import (
    MACHINES,
    Condition,
    has_program,
    oci_profile,
    program,
    rules,
)
from brickyard.solver.executor.syscalls import LAST, numbers

DOCKER = frozenset(CAPABILITIES)
ADMIN = DOCKER | {"CAP_SYS_ADMIN"}
AUDIT = {"x86_64": 0xC000003E, "x86": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028, "riscv64": 0xC00000F3}
ALLOW, KILL, EPERM, ENOSYS = "allow", "kill", 1, 38


def answer(code: bytes, audit: int, number: int, arguments: Sequence[int] = ()) -> str | int:
    """What the kernel would do with a call."""
    data = struct.pack(
        "<iIQ6Q", number - (1 << 32) if number >> 31 else number, audit, 0, *arguments, *[0] * (6 - len(arguments))
    )
    instructions = list(struct.iter_unpack("<HBBI", code))
    position = accumulator = 0
    while True:
        operation, yes, no, k = instructions[position]
        position += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif operation == 0x54:
            accumulator &= k
        elif operation == 0x05:
            position += k
        elif operation in (0x15, 0x25, 0x35):
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[operation]
            position += yes if holds else no
        else:
            assert operation == 0x06
            if k == 0x7FFF0000:
                return ALLOW
            return KILL if k == 0 else k & 0xFFFF


def expected(machine: str, capabilities: frozenset[str], name: str, arguments: Sequence[int]) -> str | int:
    """The same from the rules."""
    found: str | int = EPERM
    for rule in rules(capabilities, machine):
        if name not in rule.names.split():
            continue
        condition = rule.condition
        if condition is None:
            found = rule.errno or ALLOW
            continue
        value = arguments[condition.index]
        holds = {
            "LT": value < condition.value,
            "EQ": value == condition.value,
            "GT": value > condition.value,
            "MASKED_EQ": value & condition.value == 0,
        }[condition.op]
        if holds and found == EPERM:
            found = ALLOW
    return found


INTERESTING = (
    0,
    1,
    8,
    9,
    37,
    38,
    39,
    40,
    41,
    0x20000,
    0x20008,
    0x10000000,
    0xFFFFFFFF,
    1 << 32,
    (1 << 32) + 38,
    (1 << 64) - 1,
)


@pytest.mark.parametrize("capabilities", [DOCKER, ADMIN, frozenset()], ids=["docker", "admin", "none"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
def test_the_program_answers_every_call_as_the_rules_say(machine: str, capabilities: frozenset[str]) -> None:
    code = program(capabilities, machine)
    for architecture in MACHINES[machine]:
        names = {number: name for name, number in numbers(architecture).items()}
        x32 = architecture == "x32"
        audit = AUDIT["x86_64" if x32 else architecture]
        for number in (*range(LAST + 80), *(number for number in names if number > LAST)):
            name = names.get(number)
            for value in INTERESTING if name in ("socket", "personality", "clone") else (0,):
                arguments = (value, value)
                if name is None:
                    wanted: str | int = EPERM if number <= LAST else ENOSYS
                else:
                    wanted = expected(machine, capabilities, name, arguments)
                assert answer(code, audit, number | (0x40000000 if x32 else 0), arguments) == wanted, (
                    architecture,
                    name,
                    value,
                )


def test_other_architectures_are_killed() -> None:
    code = program(DOCKER, "x86_64")
    assert answer(code, AUDIT["aarch64"], 0) == KILL
    assert answer(code, 0, 0) == KILL


@pytest.mark.parametrize(
    ("name", "arguments", "docker", "admin"),
    [
        ("read", (), ALLOW, ALLOW),
        ("mount", (), EPERM, ALLOW),
        ("unshare", (), EPERM, ALLOW),
        ("bpf", (), EPERM, ALLOW),
        ("ptrace", (), ALLOW, ALLOW),
        ("chroot", (), ALLOW, ALLOW),
        ("reboot", (), EPERM, EPERM),
        ("add_key", (), EPERM, EPERM),
        ("io_uring_setup", (), EPERM, EPERM),
        ("clone3", (), ENOSYS, ALLOW),
        ("clone", (0x11,), ALLOW, ALLOW),
        ("clone", (0x10000000,), EPERM, ALLOW),
        ("socket", (2,), ALLOW, ALLOW),
        ("socket", (38,), EPERM, EPERM),
        ("socket", (40,), EPERM, EPERM),
        ("personality", (0x20008,), ALLOW, ALLOW),
        ("personality", (0x40000,), EPERM, EPERM),
    ],
)
def test_well_known_calls(name: str, arguments: Sequence[int], docker: str | int, admin: str | int) -> None:
    # From Linux's table, as not all of these are in ours.
    number = numbers("x86_64").get(name) or {"read": 0, "add_key": 248, "io_uring_setup": 425}[name]
    assert answer(program(DOCKER, "x86_64"), AUDIT["x86_64"], number, arguments) == docker
    assert answer(program(ADMIN, "x86_64"), AUDIT["x86_64"], number, arguments) == admin


def test_a_binary_search_keeps_the_program_short() -> None:
    assert len(program(DOCKER, "x86_64")) // 8 < 600


def test_the_form_of_an_oci_runtime() -> None:
    profile = oci_profile(DOCKER, "x86_64")
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert profile["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    calls = profile["syscalls"]
    assert {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38} in calls
    assert {
        "names": ["socket"],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 38, "op": "SCMP_CMP_LT"}],
    } in calls
    assert not any("mount" in call["names"] for call in calls)
    assert any("mount" in call["names"] for call in oci_profile(ADMIN, "x86_64")["syscalls"])
    assert "architectures" not in oci_profile(DOCKER, "sparc")


def test_clone_has_its_flags_elsewhere_on_s390() -> None:
    clone = [call["args"] for call in oci_profile(DOCKER, "s390x")["syscalls"] if call["names"] == ["clone"]]
    assert [args[0]["index"] for args in clone] == [1]


def test_machines_with_a_program() -> None:
    assert has_program("x86_64")
    assert has_program("aarch64")
    assert not has_program("s390x")
    assert not has_program("pdp11")


@given(
    table=st.dictionaries(
        st.integers(0, 700),
        st.one_of(
            st.integers(0, 100),
            st.lists(
                st.builds(
                    Condition,
                    st.integers(0, 5),
                    st.sampled_from(["LT", "EQ", "GT", "MASKED_EQ"]),
                    st.integers(1, 2**32 - 1),
                ),
                min_size=1,
                max_size=4,
            ).map(tuple),
        ),
        max_size=200,
    ),
    number=st.integers(0, 800),
    arguments=st.lists(st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 10)), min_size=6, max_size=6),
)
def test_any_table(table: dict[int, int | tuple[Condition, ...]], number: int, arguments: list[int]) -> None:
    code = assemble({"aarch64": table, "arm": {}}, 7, 9, 500)
    action = table.get(number, 7 if number <= 500 else 9)
    if not isinstance(action, int):
        holds = any(
            {
                "LT": arguments[c.index] < c.value,
                "EQ": arguments[c.index] == c.value,
                "GT": arguments[c.index] > c.value,
                "MASKED_EQ": arguments[c.index] & c.value == 0,
            }[c.op]
            for c in action
        )
        action = 0 if holds else 7
    assert answer(code, AUDIT["aarch64"], number, arguments) == (action or ALLOW)
