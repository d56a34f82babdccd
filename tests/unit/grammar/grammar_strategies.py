"""Texts that look like Dockerfiles, more or less."""

from hypothesis import strategies as st

KEYWORDS = (
    "FROM", "RUN", "COPY", "ADD", "ENV", "LABEL", "ARG", "CMD", "ENTRYPOINT", "SHELL", "USER", "WORKDIR", "VOLUME",
    "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ONBUILD", "MAINTAINER", "ONBUILD ONBUILD", "healthcheck none", "BOGUS",
)  # fmt: skip
ENDS = ("\n", "\n", "\n", "\\\n", "`\n", "\\ \n", "\r\n", "\n\n", " ", "\t")
COMMENTS = ("#", "# syntax=a/b", "# escape=`", "# escape=\\", "# check=skip=all")
HEREDOCS = ("<<EOF", "<<-EOF", "<<'E F'", '<<"EOF"', "3<<E", "EOF\n", "\tEOF\n", "E\n")
FLAGS = ("--from=a", "--", "--x", "--mount=type=bind,target=/x", "--chmod='0 7'", '--y="')
JSON = ("[", "]", '["a", "b"]', '["', "[1]", "[1e999]", "[[", "{", "}")
VARIABLES = ("${", "$A", "${A}", "${A:-", "${A:+b}", "${A?}", "${A#*", "${A%%?}", "${A/x/", "${A//", "$$", "$")
CHARACTERS = ("\\", "\\\\", '"', "'", "`", ":", "/", "*", "?", "@", "=", "a=b", "k v", "==", "a", "scratch", "AS")
STRANGE = ("\x00", "\x0b", "\x85", "\u2028", "é", "\ufeff", "\U0001f9f1", "\ud800")
FRAGMENTS = (*KEYWORDS, *ENDS, *COMMENTS, *HEREDOCS, *FLAGS, *JSON, *VARIABLES, *CHARACTERS, *STRANGE)

fragments = st.sampled_from(FRAGMENTS)
dockerfiles = st.lists(fragments | st.text(max_size=4), max_size=40).map("".join)
anything = st.text() | dockerfiles
