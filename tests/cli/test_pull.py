"""`builder pull`: what is fetched, kept and said; and what is refused, with nothing left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from builder.registry import transport
from tests.registry.conftest import QUICK
from tests.support.archives import archive
from tests.support.builds import Cli, lines, reading
from tests.support.registry import FakeRegistry, Faults, digest_of

ONE = archive(("one", {"data": b"1"}))
TWO = archive(("two", {"data": b"2"}))
LARGE = archive(("large", {"data": random.Random(3).randbytes(3_000_000)}))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process wait and try again for a moment only."""
    monkeypatch.setattr(transport, "Patience", lambda: QUICK)


def blobs(cli: Cli) -> set[str]:
    return {f"sha256:{path.name}" for path in (cli.root / "blobs/sha256").iterdir()}


def partial(cli: Cli) -> list[Path]:
    return sorted((cli.root / "partial").glob("*"))


def assert_nothing_left(cli: Cli) -> None:
    assert blobs(cli) == set()
    assert partial(cli) == []
    assert cli.leftovers() == []
    assert cli.entries() == {}


def test_an_image(cli: Cli, registry: FakeRegistry) -> None:
    image = registry.add_image("team/app", "latest", layers=(ONE, TWO))
    name = f"{registry.host}/team/app"
    first = lines(cli("pull", name))
    assert first[:2] == ["Using default tag: latest", "latest: Pulling from team/app"]
    assert sorted(first[2:4]) == sorted(f"{digest_of(layer)[7:19]}: Pull complete" for layer in (ONE, TWO))
    assert first[4:] == [
        f"Digest: {image['digest']}",
        f"Status: Downloaded newer image for {name}:latest",
        f"{name}:latest",
    ]
    assert list(cli.entries()) == [f"{name}:latest"]
    assert len(blobs(cli)) == 4
    assert cli.leftovers() == []
    registry.requests.clear()
    again = lines(cli("image", "pull", name))
    assert again[-2] == f"Status: Image is up to date for {name}:latest"
    assert registry.requests == ["GET /v2/team/app/manifests/latest"]
    assert lines(cli("pull", "-q", f"{name}:latest")) == [f"{name}:latest"]
    registry.add_image("team/app", "latest", layers=(ONE, TWO, LARGE))
    newer = lines(cli("pull", name))
    assert f"{digest_of(ONE)[7:19]}: Already exists" in newer
    assert f"{digest_of(LARGE)[7:19]}: Pull complete" in newer
    assert len(lines(cli("images", "-q", "-f", "dangling=true"))) == 1  # the older one lost its name


def test_a_pulled_image_is_a_base(cli: Cli, registry: FakeRegistry, tmp_path: Path) -> None:
    registry.add_image("base", "1", layers=(ONE,))
    lines(cli("pull", f"{registry.host}/base:1"))
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text(f"FROM {registry.host}/base:1\nCOPY Dockerfile /\n")
    registry.requests.clear()
    cli.build("-t", "app", tmp_path / "context")
    assert registry.requests == []
    assert sorted(cli.files("app")) == ["Dockerfile", "one"]


def test_platforms(cli: Cli, registry: FakeRegistry, tmp_path: Path) -> None:
    amd = registry.add_image("app", layers=(ONE,))
    arm = registry.add_image("app", layers=(TWO,), architecture="arm64")
    index = registry.add_index("app", "1", amd, arm)
    name = f"{registry.host}/app:1"
    assert f"Digest: {index['digest']}" in lines(cli("pull", "--platform", "linux/arm64", name))
    assert cli.entries()[name]["digest"] == index["digest"]
    assert digest_of(TWO) in blobs(cli)
    assert amd["digest"] not in blobs(cli)
    # What is not here of the index is fetched by whoever needs it.
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text(f"FROM {name}\nCOPY Dockerfile /\n")
    cli.build("-t", "mine", "--platform", "linux/amd64", tmp_path / "context")
    assert "one" in cli.files("mine")
    assert cli("pull", name, environ={"DOCKER_DEFAULT_PLATFORM": "linux/riscv64"}).status == 1
    refused = cli("pull", "--platform", "linux/s390x", name)
    assert refused.status == 1
    assert "has no image for linux/s390x; it has: linux/amd64, linux/arm64" in refused.err
    assert cli("pull", "--platform", "nonsense/", name).status == 2


def test_an_image_for_another_platform(cli: Cli, registry: FakeRegistry) -> None:
    registry.add_image("app", "1", layers=(ONE,), architecture="s390x")
    refused = cli("pull", "--platform", "linux/arm64", f"{registry.host}/app:1")
    assert refused.status == 1
    assert "is an image for linux/s390x, not for linux/arm64" in refused.err
    assert_nothing_left(cli)
    taken = cli("pull", f"{registry.host}/app:1")
    assert taken.status == 0
    assert "WARNING: the image is for linux/s390x" in taken.err


def test_by_digest(cli: Cli, registry: FakeRegistry) -> None:
    image = registry.add_image("app", "1", layers=(ONE,))
    name = f"{registry.host}/app@{image['digest']}"
    assert lines(cli("pull", name))[0] == f"{image['digest']}: Pulling from app"
    assert lines(cli("pull", f"{registry.host}/app:9@{image['digest']}"))[-2].startswith("Status: Image is up to date")
    assert lines(cli("images", "--format", "{{.Tag}} {{.Digest}}")) == [f"<none> {image['digest']}"]
    assert json.loads(cli("inspect", name).out)[0]["RepoDigests"] == [name]
    assert lines(cli("rmi", name))[0] == f"Untagged: {name}"


def test_all_tags(cli: Cli, registry: FakeRegistry) -> None:
    for tag, layer in (("a", ONE), ("b", TWO), ("c", ONE)):
        registry.add_image("app", tag, layers=(layer,))
    chart = {
        "schemaVersion": 2,
        "config": {"mediaType": "application/x", "digest": "sha256:0", "size": 1},
        "layers": [],
    }
    registry.add_manifest("app", chart, "d")
    done = cli("pull", "-a", f"{registry.host}/app")
    shown = lines(done)
    assert [line for line in shown if "Pulling from" in line] == [f"{tag}: Pulling from app" for tag in "abcd"]
    assert shown[-2:] == [f"Status: Downloaded newer image for {registry.host}/app", f"{registry.host}/app"]
    assert "WARNING" in done.err
    assert sorted(cli.entries()) == [f"{registry.host}/app:{tag}" for tag in "abc"]
    assert cli("pull", "-a", f"{registry.host}/app:1").status == 2


@pytest.mark.parametrize("name", ["UPPER", "a//b", "a:b:c", "x@sha256:12", "-", "", "http://x/y", "a" * 300])
def test_names_that_are_none(cli: Cli, name: str) -> None:
    done = cli("pull", "--", name)
    assert done.status == 1
    assert done.err.startswith("error: invalid image reference")
    assert done.err.count("\n") == 2


# what goes wrong


def test_what_is_not_there(cli: Cli, registry: FakeRegistry) -> None:
    done = cli("pull", f"{registry.host}/app:1")
    assert done.status == 1
    assert f"error: {registry.host}/app:1 was not found" in done.err
    assert cli("pull", "127.0.0.1:1/app").status == 1
    assert_nothing_left(cli)


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        (Faults(only=digest_of(TWO), corrupt=True), "served a wrong blob"),
        (Faults(only="manifests", corrupt=True), "served a wrong manifest"),
        (Faults(only=digest_of(TWO), statuses=[(404, {})]), "was not found"),
        (Faults(only=digest_of(TWO), statuses=[(403, {})]), "403 Forbidden"),
    ],
)
def test_a_registry_that_lies(cli: Cli, registry: FakeRegistry, faults: Faults, says: str) -> None:
    registry.add_image("app", "1", layers=(ONE, TWO))
    registry.faults = faults
    done = cli("pull", f"{registry.host}/app:1")
    assert done.status == 1
    assert says in done.err
    assert "Traceback" not in done.err
    assert_nothing_left(cli)
    registry.faults = Faults()
    lines(cli("pull", f"{registry.host}/app:1"))


@pytest.mark.parametrize("difference", [-1, 1, 1 << 60])
@pytest.mark.parametrize("part", ["layer", "config", "manifest"])
def test_wrong_sizes(cli: Cli, registry: FakeRegistry, part: str, difference: int) -> None:
    entry = registry.add_image("app", layers=(ONE,))
    if part == "manifest":
        entry["size"] += difference
        registry.add_index("app", "1", entry)
    else:
        document = json.loads(registry.repositories["app"][entry["digest"]][1])
        (document["layers"][0] if part == "layer" else document["config"])["size"] += difference
        registry.add_manifest("app", document, "1")
    for _ in range(2):
        done = cli("pull", f"{registry.host}/app:1")
        assert done.status == 1
        assert "instead of" in done.err or "not what its index states" in done.err or "absurd size" in done.err
        assert_nothing_left(cli)


def test_a_wrong_size_of_a_layer_that_is_here(cli: Cli, registry: FakeRegistry) -> None:
    entry = registry.add_image("app", "1", layers=(ONE,))
    lines(cli("pull", f"{registry.host}/app:1"))
    document = json.loads(registry.repositories["app"][entry["digest"]][1])
    document["layers"][0]["size"] += 1
    registry.add_manifest("app", document, "2")
    done = cli("pull", f"{registry.host}/app:2")
    assert done.status == 1
    assert "the manifest of" in done.err
    assert list(cli.entries()) == [f"{registry.host}/app:1"]


def test_a_layer_that_is_not_what_the_configuration_says(cli: Cli, registry: FakeRegistry, tmp_path: Path) -> None:
    """The blob is the manifest's, so the image can be pulled and pushed on; whoever looks into it is told."""
    registry.add_image("app", "1", layers=(ONE,))
    registry.add_image("forged", "1", layers=(TWO,))
    document = json.loads(registry.repositories["forged"]["1"][1])
    document["config"] = json.loads(registry.repositories["app"]["1"][1])["config"]
    registry.add_blob("forged", registry.blobs["app"][document["config"]["digest"]])
    registry.add_manifest("forged", document, "1")
    lines(cli("pull", f"{registry.host}/forged:1"))
    done = cli("export", f"{registry.host}/forged:1", "-o", tmp_path / "out")
    assert done.status == 1
    assert not (tmp_path / "out").exists()


def test_failures_that_pass(cli: Cli, registry: FakeRegistry, impatient: None) -> None:
    registry.add_image("app", "1", layers=(LARGE,))
    registry.faults = Faults(
        statuses=[(500, {}), (503, {}), (429, {"Retry-After": "0"})], cut_after=[400_000, 300_000], only="blobs"
    )
    lines(cli("pull", f"{registry.host}/app:1"))
    assert any("range" in headers for headers in registry.headers)
    assert partial(cli) == []


def test_what_a_limit_is_for(cli: Cli, registry: FakeRegistry, impatient: None) -> None:
    registry.faults = Faults(statuses=[(429, {"Retry-After": "3600"})])
    done = cli("pull", f"{registry.host}/app:1")
    assert done.status == 1
    assert "429 Too Many Requests, and asks to wait 3600 s" in done.err
    assert "FAULT: made to fail" in done.err
    assert "log in" in done.err


def test_a_cut_pull_is_gone_on_with_by_the_next(cli: Cli, registry: FakeRegistry, impatient: None) -> None:
    registry.add_image("app", "1", layers=(LARGE, ONE))
    name = f"{registry.host}/app:1"
    registry.faults = Faults(only=digest_of(LARGE), cut_after=[1_000_000, 0, 0, 0, 0, 0])
    done = cli("pull", name)
    assert done.status == 1
    assert "broke off" in done.err
    assert [path.stat().st_size for path in partial(cli)] == [1_000_000]
    assert cli.entries() == {}
    registry.faults = Faults()
    registry.requests.clear()
    registry.headers.clear()
    lines(cli("pull", name))
    fetched = [request for request in registry.requests if "blobs" in request]
    assert fetched == [f"GET /v2/app/blobs/{digest_of(LARGE)}"]  # the small layer and the configuration were kept
    assert registry.headers[-1]["range"] == "bytes=1000000-"
    assert partial(cli) == []


def test_what_was_left_is_removed_with_the_rest(cli: Cli, registry: FakeRegistry, impatient: None) -> None:
    registry.add_image("app", "1", layers=(LARGE,))
    registry.faults = Faults(only=digest_of(LARGE), cut_after=[1_000_000, 0, 0, 0, 0, 0])
    assert cli("pull", f"{registry.host}/app:1").status == 1
    assert len(partial(cli)) == 1
    lines(cli("prune", "-f"))
    assert_nothing_left(cli)


def test_an_interrupt(cli: Cli, registry: FakeRegistry) -> None:
    registry.add_image("app", "1", layers=(LARGE,))
    registry.faults = Faults(only=digest_of(LARGE), drip=0.001)
    with reading(cli.start("pull", f"{registry.host}/app:1")) as log:
        deadline = time.monotonic() + 20
        while not any(path.stat().st_size for path in partial(cli)) and time.monotonic() < deadline:
            time.sleep(0.02)
        log.process.send_signal(signal.SIGINT)
        assert log.process.wait(10) == 130
    assert "error: interrupted" in log.text
    assert "Traceback" not in log.text
    assert cli.entries() == {}
    registry.faults = Faults()
    lines(cli("pull", f"{registry.host}/app:1"))
    assert cli.leftovers() == []


@pytest.mark.slow
def test_silence_ends(cli: Cli, registry: FakeRegistry) -> None:
    registry.add_image("app", "1", layers=(ONE,))
    registry.faults = Faults(only=digest_of(ONE), silent=100)
    started = time.monotonic()
    with reading(cli.start("pull", f"{registry.host}/app:1")) as log:
        assert "trying again" in log.wait_for("silent for 60 s", timeout=90)
    assert time.monotonic() - started < 75


# several at once


def test_two_processes_fetch_everything_once(cli: Cli, registry: FakeRegistry) -> None:
    registry.add_image("app", "1", layers=(LARGE, ONE, TWO))
    registry.add_image("app", "2", layers=(ONE, TWO, LARGE))
    registry.faults = Faults(only="blobs", silent=0.3)
    processes = [cli.start("pull", f"{registry.host}/app:{tag}") for tag in ("1", "2", "1", "2")]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], results
    fetched = [request for request in registry.requests if "/blobs/" in request]
    assert len(fetched) == len(set(fetched)) == 5  # three layers, two configurations
    assert sorted(cli.entries()) == [f"{registry.host}/app:1", f"{registry.host}/app:2"]
    assert partial(cli) == []
    assert cli.leftovers() == []


def test_layers_come_side_by_side(cli: Cli, registry: FakeRegistry) -> None:
    registry.add_image("app", "1", layers=(LARGE, ONE, TWO))
    registry.faults = Faults(only=f"{digest_of(LARGE)}|{digest_of(ONE)}|{digest_of(TWO)}", silent=0.3, meet=3)
    lines(cli("pull", f"{registry.host}/app:1"))
    assert registry.most_waiting == 3


def test_removals_beside_a_pull_take_nothing_of_it(cli: Cli, registry: FakeRegistry) -> None:
    registry.add_image("other", "1", layers=(TWO,))
    registry.add_image("app", "1", layers=(ONE, LARGE))
    lines(cli("pull", f"{registry.host}/other:1"))
    registry.faults = Faults(only=digest_of(LARGE), drip=0.0005)
    process = cli.start("pull", f"{registry.host}/app:1")
    deadline = time.monotonic() + 20
    while digest_of(ONE) not in blobs(cli) and time.monotonic() < deadline:
        time.sleep(0.02)
    lines(cli("rmi", f"{registry.host}/other:1"))
    lines(cli("prune", "-f"))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert {digest_of(ONE), digest_of(LARGE)} <= blobs(cli)


# the machine


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk(cli: Cli, registry: FakeRegistry) -> None:
    registry.add_image("small", "1", layers=(ONE,))
    registry.add_image("app", "1", layers=(TWO, LARGE))
    cli.root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(cli.root)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        lines(cli("pull", f"{registry.host}/small:1"))
        kept = blobs(cli)
        done = cli("pull", f"{registry.host}/app:1")
        assert done.status == 1
        assert "the disk is full" in done.err
        assert "Traceback" not in done.err
        assert blobs(cli) == kept
        assert partial(cli) == []
        assert cli.leftovers() == []
        assert list(cli.entries()) == [f"{registry.host}/small:1"]
        subprocess.run(["mount", "-o", "remount,size=64m", cli.root], check=True)
        lines(cli("pull", f"{registry.host}/app:1"))
    finally:
        subprocess.run(["umount", "-l", cli.root], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["pull", "push"])
def test_memory_stays_flat(cli: Cli, registry: FakeRegistry, command: str) -> None:
    peaks = []
    for megabytes in (1, 200):
        name = f"{registry.host}/app{megabytes}:1"
        registry.add_image(f"app{megabytes}", "1", layers=(bytes(megabytes << 20),))
        if command == "push":
            lines(cli("pull", name))
            del registry.repositories[f"app{megabytes}"], registry.blobs[f"app{megabytes}"]
        process = cli.start(command, name, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        peaks.append(usage.ru_maxrss)  # KiB
    assert peaks[1] - peaks[0] < 16_000, peaks
