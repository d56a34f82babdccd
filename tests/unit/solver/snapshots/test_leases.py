"""What builds use stays; what is being removed can't be taken any more."""

from typing import Any


def test_a_lease_holds_what_its_snapshots_are_made_of(state: Any) -> None:
    leases, snapshots = state.context.leases, state.context.snapshots
    base, other = state.snapshot({"a": b""}), state.snapshot({"b": b""})
    top = state.snapshot({"c": b""}, base)
    merged = snapshots.merge([top, other])
    free = state.snapshot({"d": b""})
    assert leases.idle()
    lease = leases.open()
    assert not leases.idle()
    assert lease.add([merged, merged])
    assert leases.held() == {merged, top, base, other}
    with leases.removing([base, other, top, merged, free]) as removable:
        assert removable == {free}
    lease.release()
    lease.release()
    assert leases.idle()
    assert leases.held() == set()


def test_uses_are_counted(state: Any) -> None:
    leases = state.context.leases
    name = state.snapshot({})
    first, second = leases.open(), leases.open()
    assert first.add([name])
    assert second.add([name])
    first.release()
    assert leases.held() == {name}
    second.release()
    assert leases.held() == set()


def test_what_is_going_cannot_be_taken(state: Any) -> None:
    leases = state.context.leases
    base = state.snapshot({})
    top = state.snapshot({}, base)
    lease = leases.open()
    with leases.removing([base]) as removable:
        assert removable == {base}
        assert not lease.add([top])
        assert not lease.add([base])
    assert lease.add([top])
    assert not lease.add(["never"])
    assert leases.held() == {base, top}
    lease.release()
