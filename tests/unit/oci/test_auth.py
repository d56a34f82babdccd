"""WWW-Authenticate headers and the scopes of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.oci.auth import Challenge, Token, challenges, merge_scopes


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Basic realm="a b"', [("basic", {"realm": "a b"})]),
        ("Bearer realm=x,service=y", [("bearer", {"realm": "x", "service": "y"})]),
        ('Bearer realm="a, b=c", scope="s:x:pull,push"', [("bearer", {"realm": "a, b=c", "scope": "s:x:pull,push"})]),
        (r'Basic realm="say \"hi\" \\"', [("basic", {"realm": r'say "hi" \\'.replace("\\\\", "\\")})]),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Bearer realm="x", Basic realm="y"', [("bearer", {"realm": "x"}), ("basic", {"realm": "y"})]),
        ("BEARER Realm=x , SERVICE=y", [("bearer", {"realm": "x", "service": "y"})]),
        ("", []),
        ("===", []),
    ],
)
def test_challenges(header: str, found: list[tuple[str, dict[str, str]]]) -> None:
    assert challenges(header) == [Challenge(scheme, parameters) for scheme, parameters in found]


@given(st.text(alphabet='Bearer ="\\,x', max_size=60))
def test_any_header_ends(header: str) -> None:
    challenges(header)


def test_scopes() -> None:
    assert merge_scopes("repository:b:pull", "repository:a:push,pull repository:b:push") == (
        "repository:a:pull,push",
        "repository:b:pull,push",
    )
    assert merge_scopes("repository:example.com:5000/a:pull", "") == ("repository:example.com:5000/a:pull",)


def test_tokens_hide_their_text() -> None:
    assert "secret" not in repr(Token.fresh("secret", 60))


@pytest.mark.parametrize("life", [None, "x", 0, -5])
def test_tokens_without_a_life_have_a_minute(life: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    assert Token.fresh("t", life).expires == 50.0
