"""White space as the Dockerfile language counts it: Unicode's spaces at the ends of a line, blanks between words."""

import re

SPACES = "".join(map(chr, (*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029)))
SPACES += "\u202f\u205f\u3000"
BLANKS = re.compile(r"[\t\v\f\r ]+")
