from __future__ import annotations

import pytest

from builder.oci.spec import OCI_MANIFEST, Descriptor, Platform, PlatformRecord
from builder.registry.platforms import candidates, matches, select


def texts(platform: str) -> list[str]:
    return [str(found) for found in candidates(Platform(*platform.split("/")))]


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("linux/amd64", "linux/amd64 linux/386"),
        ("linux/amd64/v3", "linux/amd64/v3 linux/amd64/v2 linux/amd64 linux/386"),
        ("linux/arm/v7", "linux/arm/v7 linux/arm/v6 linux/arm/v5"),
        ("linux/arm/v6", "linux/arm/v6 linux/arm/v5"),
        ("linux/arm/v5", "linux/arm/v5"),
        ("linux/arm64", "linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5"),
        ("linux/riscv64", "linux/riscv64"),
        ("windows/amd64", "windows/amd64 windows/386"),
        (f"linux/amd64/v{'9' * 5000}", f"linux/amd64/v{'9' * 5000} linux/386"),
        ("linux/arm/v100", "linux/arm/v100"),
    ],
)
def test_candidates(platform: str, expected: str) -> None:
    assert texts(platform) == expected.split()


def test_candidates_of_armv9() -> None:
    found = texts("linux/arm64/v9.1")
    assert found[:3] == ["linux/arm64/v9.1", "linux/arm64/v9", "linux/arm64/v8.6"]
    assert found[-5:] == ["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]


def entry(text: str | None, **more: str) -> Descriptor:
    parts = (text or "").split("/")
    record = PlatformRecord(parts[1], parts[0], variant=parts[2] if len(parts) > 2 else "") if text else None
    return Descriptor(OCI_MANIFEST, f"sha256:{text}", 1, platform=record, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("index", "wanted", "expected"),
    [
        (["linux/amd64", "linux/arm64"], "linux/arm64", ["linux/arm64"]),
        (["linux/386", "linux/amd64"], "linux/amd64", ["linux/amd64", "linux/386"]),
        (["linux/x86_64"], "linux/amd64", ["linux/x86_64"]),
        (["linux/arm64/v8"], "linux/arm64", ["linux/arm64/v8"]),
        (["linux/arm"], "linux/arm/v7", ["linux/arm"]),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", ["linux/arm/v6", "linux/arm/v5"]),
        (["linux/arm/v7"], "linux/arm/v6", []),
        (["unknown/unknown"], "linux/amd64", []),
        ([None, "linux/amd64"], "linux/amd64", ["linux/amd64", None]),
        (["windows/amd64"], "linux/amd64", []),
    ],
)
def test_select(index: list[str | None], wanted: str, expected: list[str | None]) -> None:
    found = select([entry(text) for text in index], Platform(*wanted.split("/")))
    assert [descriptor.digest for descriptor in found] == [f"sha256:{text}" for text in expected]


def test_artifacts_are_left_out() -> None:
    assert select([entry("linux/amd64", artifact_type="application/x")], Platform("linux", "amd64")) == []


def test_matches() -> None:
    assert matches(Platform("linux", "arm64", "v8"), Platform("linux", "arm64"))
    assert not matches(Platform("linux", "arm64"), Platform("linux", "amd64"))
