"""A build check."""

import re
from dataclasses import dataclass

_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: `name` as `check=skip=NAME` takes it, and what it is about; Docker may have a page of its own on it."""

    name: str
    description: str
    experimental: bool = False
    documented: bool = True

    @property
    def url(self) -> str:
        """Docker's page about the rule, empty where there is none."""
        if not self.documented:
            return ""
        return f"https://docs.docker.com/go/dockerfile/rule/{_WORD.sub('-', self.name).lower()}/"
