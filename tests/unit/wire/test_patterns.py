"""Patterns of ignore files: the cases are those that moby/patternmatcher documents, or follow from filepath.Match."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.wire.patterns import Matcher, PatternError, clean, match


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("**", "file", True),
        ("**", "dir/file", True),
        ("**/", "file", True),
        ("**/", "dir/file", True),
        ("**/**", "dir/file", True),
        ("dir/**", "dir/file", True),
        ("dir/**", "dir/dir2/file", True),
        ("dir/**", "other/dir/file", False),
        ("**/dir", "dir", True),
        ("**/dir", "dir/file", True),
        ("**/dir2/*", "dir/dir2/file", True),
        ("**/dir2/*", "dir/dir2/dir2/file", True),
        ("**/dir2/**", "dir/dir2/dir2/file", True),
        ("**file", "file", True),
        ("**file", "dir/file", True),
        ("**/file", "dir/file", True),
        ("**file", "dir/dir/file", True),
        ("**/file*", "dir/dir/file.txt", True),
        ("**/file*txt", "dir/dir/file.txt", True),
        ("**/file*.txt*", "dir/dir/file.txt", True),
        ("**/**/*.txt", "dir/dir/file.txt", True),
        ("**/**/*.txt2", "dir/dir/file.txt", False),
        ("**/*.txt", "file.txt", True),
        ("a**/*.txt", "a/file.txt", True),
        ("a**/*.txt", "a/dir/file.txt", True),
        ("a/*.txt", "a/dir/file.txt", False),
        ("a/*.txt", "a/file.txt", True),
        ("a[b-d]e", "ae", False),
        ("a[b-d]e", "ace", True),
        ("a[^b-d]e", "aze", True),
        (".*", ".foo", True),
        (".*", "foo", False),
        ("abc.def", "abcdef", False),
        ("abc.def", "abc.def", True),
        ("abc?def", "abcZdef", True),
        ("abc?def", "abcdef", False),
        ("**/foo/bar", "foo/bar", True),
        ("**/foo/bar", "dir/dir2/foo/bar", True),
        ("abc/**", "abc", False),
        ("abc/**", "abc/def/ghi", True),
        ("**/.foo", ".foo", True),
        ("**/.foo", "bar.foo", False),
        ("a(b)c/def", "a(b)c/def", True),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", True),
        ("\\*", "*", True),
        ("\\*", "x", False),
        ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36-py3-none-any.whl", True),
    ],
)
def test_one_pattern(pattern: str, path: str, found: bool) -> None:
    matcher = Matcher([pattern])
    assert matcher.matches(path) is found
    assert walked(matcher, path) is found


@pytest.mark.parametrize(
    ("patterns", "path", "found"),
    [
        (["**", "!util/docker/web"], "util/docker/web/foo", False),
        (["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", True),
        (
            ["**", "!dist/proxy.py-2.4.0rc3.dev36-py3-none-any.whl"],
            "dist/proxy.py-2.4.0rc3.dev36-py3-none-any.whl",
            False,
        ),
        (["**", "!dist/*.whl"], "dist/proxy.whl", False),
        (["a", "!a/b", "a/b/c"], "a/b/c", True),
        (["a", "!a/b", "a/b/c"], "a/b/d", False),
        (["*", "!.git"], ".git/HEAD", False),
        (["!.git"], ".git", False),
        ([], "x", False),
        (["", "  "], "x", False),
        ([" x "], "x", True),
        (["./a/../x"], "x", True),
    ],
)
def test_several_patterns(patterns: list[str], path: str, found: bool) -> None:
    matcher = Matcher(patterns)
    assert matcher.matches(path) is found
    assert walked(matcher, path) is found


def walked(matcher: Matcher, path: str) -> bool:
    """What a walk from the top says of a path."""
    found, state, prefix = False, 0, ""
    for part in path.split("/"):
        prefix = f"{prefix}/{part}" if prefix else part
        found, state = matcher.step(prefix, part, state)
    return found


@pytest.mark.parametrize("pattern", ["[", "a[", "[]a]", "[-a]", "[a-]", "a\\", "!a[", "[^", "[a", "x/[a-\\"])
def test_broken_patterns(pattern: str) -> None:
    with pytest.raises(PatternError, match="syntax error"):
        Matcher([pattern])


def test_an_exclamation_mark_alone() -> None:
    with pytest.raises(PatternError, match="illegal exclusion"):
        Matcher(["!"])


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("*", "a/b", False),
        ("*", "", True),
        ("a?", "a/", False),
        ("[b-a]", "a", False),
        ("[^b-a]", "a", True),
        ("\\[x", "[x", True),
        ("[\\]]", "]", True),
        ("a**b", "axxb", True),
        ("[!a]", "!", True),
    ],
)
def test_go_match(pattern: str, name: str, found: bool) -> None:
    assert match(pattern, name) is found


def test_what_may_be_below() -> None:
    matcher = Matcher(["node_modules", "!node_modules/keep/me", "!other/*"])
    assert matcher.may_match_below("node_modules")
    assert matcher.may_match_below("node_modules/keep")
    assert not matcher.may_match_below("node_modules/else")
    assert not matcher.may_match_below("node_modules/keepsake")
    assert matcher.may_match_below("other")
    assert Matcher(["a", "!**/b"]).may_match_below("anything")
    assert not Matcher(["a"]).may_match_below("a")
    assert Matcher(["a/b"]).may_include_below("a")
    assert not Matcher(["a/b"]).may_include_below("b")


def test_clean() -> None:
    assert [clean(path) for path in ("", "a//b/", "./a", "//a", "a/../..", "/..")] == [".", "a/b", "a", "/a", "..", "/"]


_PART = st.text(st.sampled_from("ab.*"), min_size=1, max_size=3).filter(lambda text: text.strip("."))
_PATTERN = st.tuples(st.sampled_from(["", "!", "**/", "!**/"]), st.lists(_PART, min_size=1, max_size=3)).map(
    lambda pair: pair[0] + "/".join(pair[1])
)
_PATH = st.lists(st.sampled_from(["a", "b", "ab", "a.b", "c"]), min_size=1, max_size=4).map("/".join)


@given(st.lists(_PATTERN, max_size=5), _PATH)
def test_skipping_folders_loses_nothing(patterns: list[str], path: str) -> None:
    """A walk that looks into no folder without need still finds every path that is not matched."""
    matcher = Matcher(patterns)
    parts = path.split("/")
    state = 0
    for depth in range(1, len(parts)):
        prefix = "/".join(parts[:depth])
        found, state = matcher.step(prefix, parts[depth - 1], state)
        if found and not matcher.may_match_below(prefix):
            assert walked(matcher, path)
            return


@given(st.lists(_PATTERN, max_size=4).filter(lambda ps: not any(p.startswith("!") for p in ps)), _PATH)
def test_a_walk_agrees_with_a_look_up(patterns: list[str], path: str) -> None:
    matcher = Matcher(patterns)
    assert walked(matcher, path) is matcher.matches(path)


def plain(pattern: str) -> str:
    """The regular expression of a pattern in its simplest form, which may take very long."""
    parts = re.split(r"(\*\*/?)", pattern)
    out = []
    for index, part in enumerate(parts):
        if index % 2 == 0:
            out.append("".join({"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)) for char in part))
        else:
            ends = index == len(parts) - 2 and not parts[-1]
            begins = part == "**" and index == 1 and not parts[0] and not re.search(r"[*?]", "".join(parts[2:]))
            out.append(".*" if ends or begins else "(?:.*/)?")
    return "".join(out)


@given(
    st.lists(st.sampled_from(["a", "b", "*", "**", "**/", "/", "?"]), min_size=1, max_size=9).map("".join),
    st.text(alphabet="aab/", min_size=1, max_size=10),
)
def test_patterns_mean_their_plain_regular_expression(pattern: str, path: str) -> None:
    path, pattern = clean(path).strip("/"), clean(pattern)
    if path in ("", ".") or pattern.startswith("/"):
        return
    matcher = Matcher([pattern])
    expression = re.compile(plain(pattern), re.DOTALL)
    above = [path[: match.start()] for match in re.finditer("/", path)]
    assert matcher.matches(path) == any(expression.fullmatch(name) is not None for name in [*above, path])


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a*a*a*a*a*a*a*b", "a" * 250),
        ("**/a/**/a/**/a/**/a/**/a/**/b", "a/" * 100 + "c"),
        ("a**a**a**a**a**a**a**b", "a/" * 100 + "a"),
        ("*a**a*b**a*b**a*c", "ab/" * 80 + "a"),
        ("**/*a*/**/*a*/**/*a*/**/b", "aaaa/" * 50 + "c"),
    ],
)
def test_no_pattern_takes_long(pattern: str, path: str) -> None:
    start = time.process_time()
    assert not Matcher([pattern]).matches(path)
    assert time.process_time() - start < 1
