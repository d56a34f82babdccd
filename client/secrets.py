"""Secrets of a build: read when they are asked for, checked before the build starts."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import ClientError
from .options import Secret

MAX_SIZE = 500 * 1024
"""The largest secret that BuildKit passes on."""


class Secrets:
    """The secrets of one build by id.

    Raises:
        ClientError: a secret has no id, or its file is not there or too large.
    """

    def __init__(self, secrets: Sequence[Secret], environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._places: dict[str, Path | str] = {}
        for secret in secrets:
            if not secret.id:
                raise ClientError("a secret has no id: write --secret id=NAME,src=FILE")
            self._places[secret.id] = self._place(secret)

    def _place(self, secret: Secret) -> Path | str:
        if secret.env:
            return secret.env
        if secret.path is None and secret.id in self._environ:
            return secret.id
        path = secret.path if secret.path is not None else Path(secret.id)
        if not path.is_file():
            raise ClientError(f"secret {secret.id}: the file {path} is not there")
        _check_size(secret.id, path.stat().st_size)
        return path

    def get(self, id: str) -> bytes | None:
        """The value, None where there is none of that id."""
        place = self._places.get(id)
        if place is None:
            return None
        if isinstance(place, str):
            value = self._environ.get(place)
            return None if value is None else os.fsencode(value)
        data = place.read_bytes()
        _check_size(id, len(data))
        return data


def _check_size(id: str, size: int) -> None:
    if size > MAX_SIZE:
        raise ClientError(f"secret {id} is {size} bytes large; the limit is {MAX_SIZE}")
