from __future__ import annotations

import pytest

from builder.errors import RegistryError
from builder.registry.urls import is_same_origin, join, split


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://reg.example.com", "https://reg.example.com:443", True),
        ("https://reg.example.com:443/v2/", "https://REG.example.com/v2/x?y=1", True),
        ("http://reg.example.com:80", "http://reg.example.com", True),
        ("http://reg.example.com.", "http://reg.example.com", True),
        ("http://[::1]:5000", "http://[::1]:5000/", True),
        ("http://reg.example.com", "https://reg.example.com", False),
        ("https://reg.example.com", "https://reg.example.com:5000", False),
        ("https://reg.example.com", "https://cdn.example.com", False),
        ("https://reg.example.com", "https://u:p@reg.example.com", False),
    ],
)
def test_origins(one: str, other: str, same: bool) -> None:
    assert is_same_origin(one, other) is is_same_origin(other, one) is same


@pytest.mark.parametrize("url", ["http://[x", "https://h:port/", "//[", "http://h:99999/"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(RegistryError, match="is not a URL"):
        split(join("http://h/", url))
