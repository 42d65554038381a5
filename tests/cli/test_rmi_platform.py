"""`builder rmi --platform`: one variant of an image for several platforms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from builder.store.store import Store
from tests.support.builds import Cli, lines
from tests.support.registry import FakeRegistry, digest_of


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as running:
        amd = running.add_image("app", "lone", layers=(b"amd",))
        arm = running.add_image("app", layers=(b"arm",), architecture="arm64")
        running.add_index("app", "1", amd, arm)
        yield running


def blobs(cli: Cli) -> set[str]:
    return {f"sha256:{path.name}" for path in (cli.root / "blobs/sha256").iterdir()}


def test_one_variant_and_the_last(cli: Cli, registry: FakeRegistry) -> None:
    name = f"{registry.host}/app:1"
    for platform in ("linux/amd64", "linux/arm64"):
        lines(cli("pull", "--platform", platform, name))
    assert len(lines(cli("rmi", "--platform", "linux/arm64", name))) == 1
    assert digest_of(b"arm") not in blobs(cli)
    assert digest_of(b"amd") in blobs(cli)
    assert list(cli.entries()) == [name]
    for platforms in ("linux/arm64", "linux/amd64,linux/arm64"):
        refused = cli("rmi", "--platform", platforms, name)
        assert refused.status == 1
        assert "no variant for linux/arm64" in refused.err
    assert digest_of(b"amd") in blobs(cli)
    assert lines(cli("image", "rm", "--platform", "amd64", name))[0] == f"Untagged: {name}"
    assert blobs(cli) == set()


def test_what_others_need_stays(cli: Cli, registry: FakeRegistry) -> None:
    name, lone = f"{registry.host}/app:1", f"{registry.host}/app:lone"
    for platform in ("linux/amd64", "linux/arm64"):
        lines(cli("pull", "--platform", platform, name))
    lines(cli("pull", lone))
    refused = cli("rmi", "--platform", "linux/amd64", name)
    assert refused.status == 1
    assert f"is part of {lone} too" in refused.err
    of_one = cli("rmi", "--platform", "linux/amd64", lone)
    assert "is for one platform only" in of_one.err
    store = Store(str(cli.root))
    with store.lease():
        store.layout.pin(registry.add_image("app", layers=(b"arm",), architecture="arm64")["digest"])
        busy = cli("rmi", "--platform", "linux/arm64", name)
    assert busy.status == 1
    assert "a running build uses" in busy.err
    assert {digest_of(b"amd"), digest_of(b"arm")} <= blobs(cli)
