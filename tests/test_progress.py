"""What events are in words."""

from __future__ import annotations

import pytest

from builder.progress import Warned, human_size, warning


def test_warnings() -> None:
    assert warning(Warned("text")) == "WARNING: text"
    assert warning(Warned("text", "Dockerfile:1")) == "WARNING: Dockerfile:1: text"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"), (1, "1B"), (999, "999B"), (1000, "1kB"), (1234, "1.23kB"), (999_499, "999kB"), (999_999, "1MB"),
        (1_500_000, "1.5MB"), (12_345_678, "12.3MB"), (5_000_000_000, "5GB"), (10**12, "1TB"), (10**16, "1e+04TB"),
    ],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert human_size(count) == text
