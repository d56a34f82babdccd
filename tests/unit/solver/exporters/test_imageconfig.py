"""Configs as they are stored. The expected forms are those of BuildKit's image writer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.oci.config import ConfigError
from brickyard.solver.exporters.imageconfig import Time, default_config, patch

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
CREATED = [1_700_000_000_123_456_789, 1_700_000_100 * 10**9]
MADE = {"created": "2023-11-14T22:13:20.123456789Z", "created_by": "first", "comment": "buildkit.exporter.image.v0"}


def patched(config: dict[str, Any], layers: int = 0, **more: Any) -> dict[str, Any]:
    data = json.dumps({"architecture": "amd64", "os": "linux", **config}).encode()
    found: dict[str, Any] = json.loads(
        patch(data, [ONE, TWO][:layers], CREATED[:layers], lambda: ["first", "second"][:layers], **more)
    )
    return found


def test_the_bytes() -> None:
    data = (
        b'{ "os":"linux" , "variant" : "v\\u00e9", "architecture":"arm64",\n "config":{"Env":["A=<b>&\xe2\x80\xa8"],'
        b' "n": 1.50e3, "e":{ }, "l": [ 1 , 2 ]}}'
    )
    assert patch(data, [ONE], CREATED[:1], lambda: ["first"]) == (
        b'{"architecture":"arm64","config":{"Env":["A=\\u003cb\\u003e\\u0026\\u2028"],"n":1.50e3,"e":{},"l":[1,2]},'
        b'"created":"2023-11-14T22:13:20.123456789Z","history":[{"created":"2023-11-14T22:13:20.123456789Z",'
        b'"created_by":"first","comment":"buildkit.exporter.image.v0"}],"os":"linux",'
        b'"rootfs":{"type":"layers","diff_ids":["' + ONE.encode() + b'"]},"variant":"v\\u00e9"}'
    )


def test_nothing_at_all() -> None:
    found = patched({})
    assert found["rootfs"] == {"type": "layers", "diff_ids": None}
    assert found["history"] is None
    assert found["created"] is None


def test_the_default() -> None:
    found = json.loads(patch(default_config(), [], [], list))
    assert found["config"]["WorkingDir"] == "/"
    assert found["config"]["Env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


def test_layers_without_history_get_some() -> None:
    history = patched({"history": [{"created": "2020-01-01T00:00:00Z", "created_by": "base"}]}, 2)["history"]
    assert [entry["created_by"] for entry in history] == ["base", "second"]
    assert patched({}, 1)["history"] == [MADE]


def test_history_without_layers_is_empty() -> None:
    given_history = [{"created_by": name} for name in "abc"]
    history = patched({"history": given_history}, 1)["history"]
    assert [entry.get("empty_layer", False) for entry in history] == [False, True, True]


def test_times_are_filled_in() -> None:
    base = {"created": "2020-01-01T00:00:00Z", "created_by": "base"}
    entries = [
        base,
        {"created_by": "ENV", "empty_layer": True},
        {"created_by": "RUN"},
        {"created_by": "CMD", "empty_layer": True},
    ]
    found = patched({"history": entries}, 2)
    assert [entry["created"] for entry in found["history"]] == [
        "2020-01-01T00:00:00Z",
        "2023-11-14T22:15:00Z",
        "2023-11-14T22:15:00Z",
        "2023-11-14T22:15:00Z",
    ]
    assert found["created"] == "2023-11-14T22:15:00Z"
    # Without a new layer it is the latest that there is.
    found = patched({"history": entries[:2]}, 1)
    assert found["history"][1]["created"] == "2020-01-01T00:00:00Z"


def test_an_epoch() -> None:
    entries = [
        {"created": "2020-01-01T00:00:00Z", "created_by": "early"},
        {"created": "2023-01-01T00:00:00Z", "created_by": "late"},
        {"created_by": "none", "empty_layer": True},
    ]
    found = patched({"history": entries, "created": "2024-01-01T00:00:00Z"}, 2, epoch=1_600_000_000)
    assert [entry["created"] for entry in found["history"]] == [
        "2020-01-01T00:00:00Z",
        "2020-09-13T12:26:40Z",
        "2020-09-13T12:26:40Z",
    ]
    assert found["created"] == "2020-09-13T12:26:40Z"
    assert patched({"created": "2019-01-01T00:00:00.5Z"}, epoch=1_600_000_000)["created"] == "2019-01-01T00:00:00.5Z"


def test_an_epoch_leaves_the_base_image_alone() -> None:
    entries = [{"created": f"2023-01-0{day}T00:00:00Z", "created_by": str(day)} for day in (1, 2, 3)]
    base = json.dumps({"history": entries[:1]}).encode()
    found = patched({"history": entries}, 2, epoch=0, base=base)["history"]
    assert [entry["created"][:4] for entry in found] == ["2023", "1970", "1970"]
    other = json.dumps({"history": [{**entries[0], "comment": "other"}]}).encode()
    assert patched({"history": entries}, 2, epoch=0, base=other)["history"][0]["created"][:4] == "1970"


def test_an_inline_cache() -> None:
    assert patched({}, inline_cache=b"records")["moby.buildkit.cache.v0"] == "cmVjb3Jkcw=="


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"null", "expected an object"),
        (b"{", "not a JSON document"),
        (b"{}", "missing os"),
        (b'{"os":"linux"}', "missing architecture"),
        (b'{"os":"linux","architecture":"amd64","history":[1]}', "list of objects"),
        (b'{"os":"linux","architecture":"amd64","history":[{"created":"yesterday"}]}', "is no time"),
        (b'{"os":"linux","architecture":"amd64","history":[{"created":"2023-02-31T00:00:00Z"}]}', "is no time"),
        (b'{"os":"linux","architecture":"amd64","history":[{"created_by":1}]}', "expected texts"),
    ],
)
def test_broken_configs(data: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        patch(data, [], [], list)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("2023-11-14T22:13:20.100Z", "2023-11-14T22:13:20.1Z"),
        ("2023-11-14T22:13:20+00:00", "2023-11-14T22:13:20Z"),
        ("2023-11-14T22:13:20.000000001-02:30", "2023-11-14T22:13:20.000000001-02:30"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ],
)
def test_times(text: str, form: str) -> None:
    assert str(Time.parse(text)) == form


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x, max_size=3),
        max_leaves=10,
    )
)
def test_what_is_not_known_stays(value: Any) -> None:
    assert patched({"x": value})["x"] == value
