"""A Dockerfile of 10,000 lines, next to Docker's own parser (the PyPI package `dockerfile`); and of 100,000."""

import time

import adapter
import dockerfile
import pytest
from figures import Compare, timed

from brickyard.frontend.dockerfile.convert import convert
from brickyard.frontend.dockerfile.options import ConvertOptions
from brickyard.grammar.dockerfile.parser import parse
from brickyard.oci.platform import Platform

# What only computes is measured as time of the processor, whatever else the machine does.
CLOCK = time.process_time
pytestmark = pytest.mark.benchmark(timer=CLOCK)

AMD64 = Platform("linux", "amd64")
STAGE = """\
FROM {base} AS stage{n}
ARG VERSION{n}=1.{n}
ENV PATH=/opt/{n}/bin:/usr/bin LANG="C.UTF-8"
# The packages of this stage.
RUN --mount=type=cache,target=/var/cache/apk,id=apk{n} \\
    apk add --update-cache build-base=0.5-r{n} \\
    && echo "stage {n}"
COPY --chown=1000:1000 --link src/{n} /opt/{n}/
WORKDIR /opt/{n}
LABEL stage="{n}" org.example.version="$VERSION{n}"
RUN <<END
set -e
make -j{n} all
make install
END
EXPOSE 1{n}/tcp
HEALTHCHECK --interval=30s CMD ["wget", "-q", "-O", "-", "http://localhost/"]
USER nobody
CMD ["/opt/{n}/bin/run", "--all"]
"""


def lines(count: int) -> str:
    """A Dockerfile of so many lines, or a few more; each of its stages needs the one before."""
    stages = range(-(-count // STAGE.count("\n")))
    return "".join(STAGE.format(n=n, base=f"stage{n - 1}" if n else "alpine:3.20") for n in stages)


def test_parse_of_10_000_lines(compare: Compare) -> None:
    text = lines(10_000)
    assert len(parse(text).instructions) == len(dockerfile.parse_string(text))
    peer = "dockerfile (Go parser)"
    compare(
        "parse 10,000 lines", lambda: parse(text), peer, lambda: dockerfile.parse_string(text), rounds=7, clock=CLOCK
    )


def processor_time(text: str) -> float:
    """Seconds of the processor that parsing takes, which don't depend on what else the machine does."""
    return min(timed(lambda: parse(text), CLOCK) for _ in range(3))


@pytest.mark.goal
def test_parse_is_linear() -> None:
    # Ten times the lines: the garbage collector takes more where there is more, squared it would be 100.
    assert processor_time(lines(30_000)) < 15 * processor_time(lines(3_000))


def test_parse_of_100_000_lines(compare: Compare) -> None:
    short, long = lines(10_000), lines(100_000)
    compare("parse 100,000 lines", lambda: parse(long), "10,000 lines", lambda: parse(short), goal="10", clock=CLOCK)


def test_10_000_lines_to_llb(compare: Compare) -> None:
    """From the text to the marshalled graph."""
    text = lines(10_000)

    def build() -> None:
        options = ConvertOptions(platform=AMD64, build_platforms=[AMD64])
        assert len(convert(text, options, adapter.Offline()).definition().ops) > 1000

    compare("10,000 lines to LLB", build, "parse alone", lambda: parse(text), rounds=3, clock=CLOCK)
