"""Templates: what they make, where each line comes from, and that none of them harms the machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.frontend.template.render import MOST_STEPS, Place, Rendered, is_template, render
from brickyard.grammar.errors import Location, SourceError

TEMPLATE = """\
# brickyard: template
{% macro install(name) %}
RUN pip install {{ name }}
RUN check {{ name }}
{% endmacro %}
FROM {{ BASE }} AS app
{% for name in ["x", "y"] %}
RUN echo {{ name }} \\
   && true
{% endfor %}
{{ install("z") }}
{% include "more/steps" %}
COPY a b
{% set kept %}abc{% endset %}
{% if kept == "abc" %}
USER {{ kept }}
{% endif %}
{# two
lines #}
CMD ["x"]
"""
FILES = {"more/steps": "RUN one\nRUN two\n", "self": "{% extends 'self' %}"}


def made(text: str, **variables: str) -> Rendered:
    return render(text, variables, FILES.get)


def test_every_line_knows_where_it_comes_from() -> None:
    rendered = made(TEMPLATE, BASE="alpine")
    lines = rendered.text.split("\n")
    found = {
        line: (place, number)
        for line, place, number in zip(lines, rendered.places, rendered.lines, strict=True)
        if line
    }
    assert found == {
        "# brickyard: template": (Place("", 1), 1),
        "FROM alpine AS app": (Place("", 6), 6),
        "RUN echo x \\": (Place("", 8), 8),
        "   && true": (Place("", 9), 9),
        "RUN echo y \\": (Place("", 8), 8),
        "RUN pip install z": (Place("", 11), 11),
        "RUN check z": (Place("", 11), 11),
        "RUN one": (Place("more/steps", 1), 12),
        "RUN two": (Place("more/steps", 2), 12),
        "COPY a b": (Place("", 13), 13),
        "USER abc": (Place("", 16), 16),
        'CMD ["x"]': (Place("", 20), 20),
    }


def test_an_error_in_the_result_is_one_in_the_template() -> None:
    rendered = made(TEMPLATE, BASE="alpine")
    number = rendered.text.split("\n").index("RUN two") + 1
    error = rendered.located(SourceError("wrong", Location(number, number), "mend it"))
    assert error.message == "more/steps:2: wrong"
    assert error.location == Location(12, 12)
    assert error.hint == "mend it"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\n{{ missing }}", 2, "'missing' is undefined"),
        ("\n\n{% if %}", 3, "Expected an expression"),
        ("\n{% include 'nowhere' %}", 2, "'nowhere' is not in the context"),
        ("\n{{ 1 / 0 }}", 2, "division by zero"),
        ("\n{{ ''.__class__.__mro__ }}", 2, "unsafe"),
        ("\n{{ 'x' * 10**9 }}", 2, "too large"),
        ("\n{{ 9**9**9 }}", 2, "powers below"),
        ("\n{{ 'x'.center(10**9) }}", 2, "too large"),
        ("\n{{ '%1000000000d' | format(1) }}", 2, "too large"),
        ("\n{{ 'x' | indent(10**10) }}", 2, "too large"),
        ("\n{{ range(10**9) | list }}", 2, "too big"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", 1, str(MOST_STEPS)),
        ("\n{{ cycler }}", 2, "'cycler' is undefined"),
    ],
)
def test_what_is_refused(text: str, line: int, message: str) -> None:
    with pytest.raises(SourceError, match=message.replace("*", r"\*")) as caught:
        made(text)
    assert caught.value.location == Location(line, line)


@pytest.mark.parametrize("text", ["{% extends 'self' %}", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"])
def test_an_endless_call_ends(text: str) -> None:
    with pytest.raises(SourceError, match="without an end"):
        made(text)


def test_what_is_a_template() -> None:
    assert is_template("FROM a", "Dockerfile.j2")
    assert is_template("# syntax=x\n#  brickyard : template\nFROM a", "Dockerfile")
    assert not is_template("FROM a\n# brickyard: template\n", "Dockerfile")
    assert not is_template("# brickyard: templates\n", "Dockerfile")


@given(st.text("ab\n {}%#-'", max_size=60))
def test_any_text_is_rendered_or_refused(text: str) -> None:
    try:
        rendered = made(text)
    except SourceError:
        return
    assert len(rendered.places) == len(rendered.lines) == rendered.text.count("\n") + 1
    assert all(1 <= place.line <= text.count("\n") + 1 for place in rendered.places)
