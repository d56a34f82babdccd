"""Whatever the Dockerfile, converting it gives a graph or an error with a message."""

import adapter
from grammar_strategies import FRAGMENTS
from hypothesis import given
from hypothesis import strategies as st

from brickyard.frontend.dockerfile.convert import convert
from brickyard.frontend.dockerfile.options import ConvertOptions
from brickyard.grammar.errors import SourceError

LINES = (
    "FROM a", "FROM scratch AS x", "FROM x AS y", "FROM --platform=$BUILDPLATFORM b", "ARG A=1", "ENV B=$A C='d e'",
    "RUN --mount=type=cache,target=/c echo", "RUN --mount=from=x,target=/m,rw true", 'RUN ["a"]', "RUN <<E\nb\nE",
    "COPY --from=x --chmod=u+x a b/", "COPY --link --exclude=*.c . /", "COPY <<E /f\n$A\nE", "ADD http://h/f.tar /",
    "ADD --checksum=sha256:0 http://h/f /", "ADD https://h/r.git#b:s /", "WORKDIR $B", "USER 1:2", "VOLUME /a /b",
    "EXPOSE 80-82/tcp", "LABEL l=$B", "HEALTHCHECK --interval=1s CMD x", 'SHELL ["s"]', "STOPSIGNAL 9", "CMD x $B",
    'ENTRYPOINT ["e"]', "ONBUILD RUN <<E\nt\nE", "MAINTAINER m", "# check=skip=all",
)  # fmt: skip
# A file is text by now: half a surrogate pair is none.
PARTS = tuple(fragment for fragment in FRAGMENTS if fragment.isascii() or fragment.isprintable())
texts = st.lists(st.sampled_from(LINES) | st.sampled_from(PARTS) | st.text(max_size=6), max_size=14).map("\n".join)
broken = st.tuples(texts, st.integers(0, 60), st.sampled_from(PARTS)).map(lambda t: t[0][: t[1]] + t[2] + t[0][t[1] :])


@given(texts | broken, st.dictionaries(st.sampled_from("AB"), st.text(max_size=5)))
def test_a_graph_or_an_error(text: str, args: dict[str, str]) -> None:
    options = ConvertOptions(platform=adapter.AMD64, build_platforms=[adapter.AMD64], build_args=args)
    found: object
    try:
        found = convert("FROM scratch\n" + text, options, adapter.Offline()).definition()
    except SourceError as error:
        found = error.message
    assert found
