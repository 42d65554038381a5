"""`--max-size`, `--max-layer`, `--max-waste`: what is over them fails, and says by what."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.api.budget import parse_budget
from builder.api.options import Budget
from builder.errors import UsageError
from builder.filesystem.analysis import Analyser
from tests.support.archives import archive
from tests.support.builds import Cli, busybox_context, context, needs_sandbox

DOCKERFILE = """\
FROM scratch AS base
COPY first /data/file
ENV A=1

FROM base
COPY second /data/file
COPY large /data/large
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Layers of 12, 12 and 55 kB (a tar archive has whole blocks); 10 kB are hidden."""
    return context(tmp_path / "context", DOCKERFILE, first=b"1" * 10_000, second=b"2" * 10_000, large=b"3" * 50_000)


def sizes(cli: Cli, name: str) -> list[int]:
    import gzip

    return [len(gzip.decompress(cli.blob(layer["digest"]))) for layer in cli.manifest(name)["layers"]]


def test_within_the_budget(cli: Cli, tree: Path) -> None:
    limits = ["--max-size", "80kB", "--max-layer", "54KiB", "--max-waste", "13.1%"]
    cli.build("-t", "app", *limits, tree)
    assert sum(sizes(cli, "app")) <= 80_000
    assert max(sizes(cli, "app")) <= 54 * 1024


def test_too_large(cli: Cli, tree: Path, tmp_path: Path) -> None:
    cli.build("-t", "app", tree)
    total = sum(sizes(cli, "app"))
    before = cli.entries()
    (tree / "large").write_bytes(b"4" * 50_000)
    for output in ([], ["-o", f"type=tar,dest={tmp_path}/out.tar"], ["-o", f"type=oci,dest={tmp_path}/out.tar"]):
        done = cli("build", "-q", "-t", "app", *output, "--max-size", f"{total - 1}", tree)
        assert (done.status, done.out) == (1, b"")
        assert done.err == (
            "error: Dockerfile:7: the image has 76.8kB, more than --max-size=76.8kB\n"
            "    layer 3, 52.2kB: Dockerfile:7: [stage-1 2/2] COPY large /data/large\n"
            "           50kB /data/large\n"
            "    layer 1, 12.3kB: Dockerfile:2: [base 1/1] COPY first /data/file\n"
            "           10kB /data/file\n"
            "    layer 2, 12.3kB: Dockerfile:6: [stage-1 1/2] COPY second /data/file\n"
            "           10kB /data/file\n"
            "help: make it smaller or raise the limit; 'builder layers' shows more of an image built without one\n"
        )
    assert cli.entries() == before
    assert not (tmp_path / "out.tar").exists()
    assert cli("build", "-q", "-t", "app", "--max-size", f"{total}", tree).status == 0


def test_a_layer_too_large(cli: Cli, tree: Path) -> None:
    done = cli("build", "-q", "--max-layer", "12k", tree)
    assert done.status == 1
    assert done.err.startswith("error: Dockerfile:7: 3 layers have up to ")
    done = cli("build", "-q", "--max-layer", "20k", tree)
    assert done.err.startswith("error: Dockerfile:7: a layer has ")
    assert "more than --max-layer=20kB\n" in done.err
    assert "/data/large" in done.err
    assert "/data/file" not in done.err
    assert cli.entries() == {}


@pytest.mark.parametrize("limit", ["10%", "9.99kB", "0"])
def test_too_much_waste(cli: Cli, tree: Path, limit: str) -> None:
    for _ in range(2):  # what is known of the layers does not change what is said
        done = cli("build", "-q", "--max-waste", limit, tree)
        assert done.status == 1
        assert done.err.startswith("error: Dockerfile:6: the image wastes 10kB (")
        assert (
            "       10kB /data/file, stored in layer 1, replaced by\n"
            "            layer 2, 12.3kB: Dockerfile:6: [stage-1 1/2] COPY second /data/file\n"
        ) in done.err
    assert cli.entries() == {}


def test_what_is_squashed_wastes_nothing(cli: Cli, tree: Path) -> None:
    assert cli("build", "-q", "--squash", "--max-waste", "0", tree).status == 0
    done = cli("build", "-q", "--squash", "--max-layer", "30kB", tree)
    assert done.status == 1
    assert "error: a layer has 63" in done.err
    assert "    layer 1, 63" in done.err
    assert ": SQUASH\n" in done.err


def test_all_that_is_over_is_told(cli: Cli, tree: Path) -> None:
    done = cli("build", "-q", "--max-size", "1kB", "--max-layer", "1kB", "--max-waste", "1%", tree)
    assert done.status == 1
    assert [line.split(",")[0] for line in done.err.splitlines() if line.startswith(("error:", "  also:"))] == [
        "error: Dockerfile:7: the image has 76.8kB",
        "  also: 3 layers have up to 52.2kB",
        "  also: the image wastes 10kB (13.0%)",
    ]


def test_waste_is_remembered(cli: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.build("--max-waste", "50%", tree)

    def add(self: Analyser, stream: object) -> None:
        raise AssertionError("the layers were read again")

    monkeypatch.setattr(Analyser, "add", add)
    cli.build("--max-waste", "50%", tree)


def test_layers_of_the_base_are_the_from_lines(cli: Cli, tmp_path: Path) -> None:
    from tests.support.images import put_image

    put_image(cli.root, "base", [archive(("big", {"data": b"b" * 30_000}))], lines=["ADD big /"])
    layout = f"oci-layout://{cli.root}"
    directory = context(tmp_path / "context", "ARG X\nFROM base\nCOPY small /\n", small=b"s")
    done = cli(
        "build", "-q", "--build-context", f"base={layout}:docker.io/library/base:latest", "--max-size", "9kB", directory
    )
    assert done.status == 1, done.err
    assert "error: Dockerfile:2: the image has " in done.err
    assert "Dockerfile:2: in the base image: ADD big /\n" in done.err
    assert "layer 2, 2.05kB: Dockerfile:3: [stage-0 2/2] COPY small /\n" in done.err


def test_each_platform_has_the_budget(cli: Cli, tmp_path: Path) -> None:
    directory = context(
        tmp_path / "context", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n", amd64=b"a", arm64=b"b" * 9000
    )
    done = cli("build", "-q", "--platform", "linux/amd64,linux/arm64", "--max-size", "9kB", directory)
    assert done.status == 1
    assert done.err.startswith("error: Dockerfile:3: the image for linux/arm64 has ")


@needs_sandbox
def test_a_command_that_wastes(cli: Cli, tmp_path: Path) -> None:
    directory = busybox_context(tmp_path / "context", "RUN echo hello > /file\nRUN rm /file\n")
    done = cli("build", "-q", "--max-waste", "1B", directory)
    assert done.status == 1
    assert done.err.startswith("error: Dockerfile:5: the image wastes 6B (0.0%), more than --max-waste=1B\n")
    assert "/file, stored in layer 2, removed by\n            layer 3, " in done.err


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("", "", ""), Budget()),
        (("300MB", "100 mb", "5%"), Budget(size=300_000_000, layer=100_000_000, waste_share=0.05)),
        (("1.5GiB", "64k", "0.5%"), Budget(size=3 << 29, layer=64_000, waste_share=0.005)),
        (("0", "10B", "10MB"), Budget(size=0, layer=10, waste=10_000_000)),
        (("1Ti", "2t", "100 %"), Budget(size=1 << 40, layer=2 * 10**12, waste_share=1.0)),
    ],
)
def test_limits(texts: tuple[str, str, str], expected: Budget) -> None:
    assert parse_budget(*texts) == expected


@pytest.mark.parametrize("texts", [("5%", "", ""), ("", "-1", ""), ("", "", "a"), ("", "", "5%%"), ("1 X", "", "")])
def test_what_is_no_limit(texts: tuple[str, str, str], cli: Cli, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="invalid value"):
        parse_budget(*texts)
    options = [
        word
        for option, text in zip(("size", "layer", "waste"), texts, strict=True)
        if text
        for word in (f"--max-{option}={text}",)
    ]
    done = cli("build", *options, tmp_path)
    assert done.status == 2
    assert "help: write for example" in done.err
