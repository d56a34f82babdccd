"""JSON as Go's encoding/json writes it, since image configs are digested as they are sent."""

import json
from typing import Any

_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_ESCAPES = str.maketrans(_ESCAPED)


def dumps(document: Any, *, indent: str = "") -> bytes:
    """The document as bytes: `<`, `>`, `&` and line separators escaped, what is no Unicode replaced; keys as given."""
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(document, ensure_ascii=False, separators=separators, indent=indent or None)
    return text.translate(_ESCAPES).encode("utf-8", "replace")
