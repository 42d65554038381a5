"""Platforms as people write them, and their normal form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import UsageError
from builder.oci.platform import host_platform, parse_platform
from builder.oci.spec import normalise_platform

NORMAL = {
    "linux/amd64": "linux/amd64",
    "linux/x86_64": "linux/amd64",
    "linux/x86-64": "linux/amd64",
    "linux/amd64/v1": "linux/amd64",
    "linux/amd64/v3": "linux/amd64/v3",
    "linux/i386": "linux/386",
    "linux/arm64": "linux/arm64",
    "linux/aarch64": "linux/arm64",
    "linux/arm64/v8": "linux/arm64",
    "linux/arm64/8": "linux/arm64",
    "linux/arm64/v9": "linux/arm64/v9",
    "linux/arm": "linux/arm/v7",
    "linux/arm/v6": "linux/arm/v6",
    "linux/arm/7": "linux/arm/v7",
    "linux/armhf": "linux/arm/v7",
    "linux/armel": "linux/arm/v6",
    "Linux/ARM64": "linux/arm64",
    "macos/arm64": "darwin/arm64",
    "windows/amd64": "windows/amd64",
    "linux/unheard-of": "linux/unheard-of",
    "arm64": "linux/arm64",
    "aarch64": "linux/arm64",
    "riscv64": "linux/riscv64",
    "armhf": "linux/arm/v7",
}


@pytest.mark.parametrize("text", NORMAL)
def test_normal_forms(text: str) -> None:
    platform = parse_platform(text)
    assert str(platform) == NORMAL[text]
    assert parse_platform(str(platform)) == platform


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "linux/",
        "/amd64",
        "a/b/c/d",
        "linux/amd 64",
        "linux//v7",
        "é/amd64",
        "toaster",
        "local",
        "linux/amd64/v1000000",
        "linux/arm64/v9.100",
        "linux/arm/100",
    ],
)
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(UsageError, match="invalid platform") as caught:
        parse_platform(text)
    assert caught.value.remedy


def test_an_operating_system_alone_has_the_hosts_architecture() -> None:
    assert parse_platform("linux") == host_platform()
    assert parse_platform("windows").architecture == host_platform().architecture


@given(st.text(max_size=20))
def test_any_text_is_a_platform_or_refused(text: str) -> None:
    try:
        platform = parse_platform(text)
    except UsageError:
        return
    assert parse_platform(str(platform)) == platform


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=4))
def test_normalising_twice_changes_nothing(system: str, architecture: str, variant: str) -> None:
    once = normalise_platform(system, architecture, variant)
    assert normalise_platform(once.os, once.architecture, once.variant) == once
