"""What provenance does not tell: credentials in URLs, and values of variables that look like secrets by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from builder.plan.checks import is_sensitive

# All before the last @ of a host: a password may hold others that are not quoted. Names of images have digests there.
_CREDENTIALS = re.compile(r"(?<=://)(?<!docker-image://)(?<!oci-layout://)[^/\s]*@")
_STAND_IN = "xxxxx"

Variables = Iterable[tuple[str, str, str]]
"""What the words of an instruction used: ARG or ENV, name, value."""


def redacted(text: str) -> str:
    """A text without the credentials of URLs in it."""
    return _CREDENTIALS.sub(f"{_STAND_IN}@", text)


class Withheld:
    """Tells texts without what is secret in them; `anything` is true once that has changed one."""

    def __init__(self) -> None:
        self.anything = False

    def text(self, text: str, variables: Variables = ()) -> str:
        """Without credentials, and what secret `variables` put into it."""
        told = text
        for _, name, value in variables:
            if value and is_sensitive(name):
                told = told.replace(value, _STAND_IN)
        return self._changed(text, redacted(told))

    def value(self, name: str, value: str) -> str:
        """The value of a variable; none for one whose name says that it is secret."""
        return self._changed(value, "") if is_sensitive(name) else self.text(value)

    def dockerfile(self, text: bytes) -> bytes:
        """A Dockerfile with the same lines."""
        from builder.dockerfile.left_out import leave_out_values
        from builder.dockerfile.lines import decode
        from builder.dockerfile.parser import parse

        source = decode(text)
        told = self._changed(source, redacted(leave_out_values(source, parse(source), is_sensitive)))
        return told.encode("utf-8", "surrogateescape")

    def _changed(self, given: str, told: str) -> str:
        self.anything = self.anything or told != given
        return told
