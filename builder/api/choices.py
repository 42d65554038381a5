"""Words that Python programs may choose from."""

from __future__ import annotations

from collections.abc import Iterable

from builder.errors import UsageError

NETWORKS = ("default", "none", "host")
"""The networks of a step."""


def check_choice(keyword: str, given: str, known: Iterable[str]) -> None:
    """Raises UsageError unless what was given is known: what is not would count as the default, or fail a step."""
    if given not in known:
        raise UsageError(f"{keyword}={given!r} is not known", remedy=f"write one of: {', '.join(map(repr, known))}")
