"""The time as a cache config notes it."""

import time


def now() -> str:
    """This moment as RFC 3339, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
