"""The benchmarks work: what they measure is right, and what is wrong is noticed. No times are looked at."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.benchmarks import growth, machine, measure, series, workloads
from tests.benchmarks.compare import Cell, Row
from tests.benchmarks.expected import Expected, File, check
from tests.benchmarks.growth import Curve, Point
from tests.benchmarks.report import Report, comparison
from tests.support.archives import archive
from tests.support.builds import BUSYBOX, PROJECT, Cli, context, needs_sandbox, obstacle

MIB = 1 << 20


def curve(*costs: tuple[int, float, int], memory: float = 100) -> Curve:
    """Points of (size, seconds, MiB)."""
    points = [Point(size, seconds, seconds, mib * MIB) for size, seconds, mib in costs]
    return Curve("files", "files of a COPY", "file", "cold", memory, points)


def test_linear_growth_is_good() -> None:
    linear = curve((1, 0.2, 30), (1_000, 0.4, 30), (10_000, 2.2, 31), (100_000, 20.2, 39))
    assert linear.faults() == []
    assert [round(exponent, 2) for exponent in linear.exponents(lambda point: point.seconds) if exponent] == [1.0, 1.0]


def test_quadratic_growth_is_a_fault() -> None:
    quadratic = curve((1, 0.2, 30), (1_000, 0.4, 30), (10_000, 20.2, 30))
    assert quadratic.faults() == [
        "time grows with an exponent of 2.00",
        "processor time grows with an exponent of 2.00",
    ]


def test_what_is_less_than_noise_is_no_growth() -> None:
    noise = curve((1, 0.2, 30), (10, 0.201, 30), (100, 0.25, 30))
    assert noise.exponents(lambda point: point.seconds) == [None, None, None]
    assert noise.faults() == []


def test_memory_that_grows_is_a_fault() -> None:
    assert curve((1, 0.2, 30), (1_000_001, 0.3, 125)).faults() == []
    assert curve((1, 0.2, 30), (1_000_001, 0.3, 1030)).faults() == ["memory grows by 1.05e+03 bytes for each file"]


def test_all_processes_count() -> None:
    """The memory of a child that a command starts, which is held for a while."""
    hold = f"import time; held = b'x' * {64 * MIB}; time.sleep(0.5)"
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"]
    assert measure.measure([[command]], os.environ, watch=True).peak > 64 * MIB
    assert measure.measure([[["true"]]], os.environ).peak == 0


def test_a_failure_is_told() -> None:
    with pytest.raises(measure.Failed, match="sh ended with status 3: … no luck"):
        measure.run(["sh", "-c", "echo no luck; exit 3"], os.environ)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An OCI archive with a file of mode 0600."""
    directory = context(tmp_path / "context", 'FROM scratch\nCOPY a /a\nLABEL x=y\nCMD ["run"]\n', a="content")
    (directory / "a").chmod(0o600)
    Cli(tmp_path / "store").build("--output", f"type=oci,dest={tmp_path}/image.tar", directory)
    return tmp_path / "image.tar"


CONTENT = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"


def test_an_image_that_is_right(image: Path) -> None:
    files = {"a": File(CONTENT, 0o600), "b": None}
    check(image, Expected(files, (1, 1), {"Cmd": ["run"]}, (1, 1)), compression="gzip", thorough=True)


@pytest.mark.parametrize(
    ("expected", "compression"),
    [
        (Expected({"a": File("0" * 64)}, (1, 1)), ""),
        (Expected({"a": File(CONTENT, 0o644)}, (1, 1)), ""),
        (Expected({"a": None}, (1, 1)), ""),
        (Expected({"b": File(CONTENT)}, (1, 1)), ""),
        (Expected({}, (2, 3)), ""),
        (Expected({}, (1, 1), {"Cmd": ["other"]}), ""),
        (Expected({}, (1, 1), entries=(2, 2)), ""),
        (Expected({}, (1, 1)), "zstd"),
    ],
)
def test_an_image_that_is_wrong(image: Path, expected: Expected, compression: str) -> None:
    with pytest.raises(measure.Failed):
        check(image, expected, compression=compression, thorough=True)


def test_whiteouts_count(tmp_path: Path) -> None:
    """Read from Docker's kind of archive, uncompressed."""
    layers = (
        archive(("d", {}), ("d/a", {"data": b"1"}), ("d/b", {"data": b"2"}), ("e", {}), ("e/c", {"data": b"3"})),
        archive(("d", {}), ("d/.wh.a", {"data": b""}), (".wh.e", {"data": b""})),
        archive(("d", {}), ("d/.wh..wh..opq", {"data": b""}), ("d/n", {"data": b"4"})),
    )
    manifest = b'[{"Config": "config", "Layers": ["0", "1", "2"]}]'
    members = {"manifest.json": manifest, "config": b'{"config": {}}'}
    members |= {str(number): layer for number, layer in enumerate(layers)}
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    gone = dict.fromkeys(("d/a", "d/b", "e", "e/c"))
    check(tmp_path / "image.tar", Expected(dict(gone), (3, 3), entries=(2, 2)), thorough=True)


def test_names_of_workloads() -> None:
    assert [workload.key for workload in workloads.choose("W4, W12a")] == ["W4a", "W4b", "W4c", "W12a"]
    assert [workload.key for workload in workloads.choose("W1")] == ["W1a", "W1b"]
    with pytest.raises(ValueError, match="W99 is no workload"):
        workloads.choose("W1,W99")
    with pytest.raises(ValueError, match="height is no series"):
        series.choose("height")


def test_the_table_compares_with_the_fastest_peer() -> None:
    cells = {
        "builder": Cell([0.3, 0.1, 0.2], 30 * MIB), "docker": Cell([2.0], 160 * MIB), "buildah": Cell([0.5], 40 * MIB),
        "buildkit": Cell(note="has no squash"),
    }  # fmt: skip
    rows = [Row("W1a", "no-op", 1.0, cells, [0.1]), Row("W2a", "files", 0.2, cells, [0.2])]
    versions = dict.fromkeys(cells, "1.0")
    text = comparison(Report("2025-01-01", "a machine", versions, {}, 1.0, rows, {"W7a": "needs --rootfs"}))
    assert "| W1a no-op | 0.20 | 2.00 | 0.50 | – | 0.40 | 1.00 |" in text
    assert "| W2a files | 0.20 | 2.00 | 0.50 | – | **0.40** | 0.20 |" in text
    assert "| W1a | 0.10–0.30; 30 | 2.00–2.00; 160 | 0.50–0.50; 40 | – |" in text
    assert "- W1a, buildkit: has no squash" in text
    assert "- W7a: needs --rootfs" in text


@needs_sandbox
def test_a_run_from_the_command_line(tmp_path: Path) -> None:
    """One that needs no base image, one that needs a small one, one that pushes, and one that must be left out."""
    command = [sys.executable, "-m", "tests.benchmarks", "--only", "W2a,W8,W7a", "--builders", "builder"]
    command += ["--scale", "0.001", "--runs", "1", "--work", str(tmp_path), "--md", str(tmp_path / "table.md")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| W2a COPY of 30,000 files | " in done.stdout
    assert "| W8 chmod and rm of 20,000 files | " in done.stdout
    assert "W7a: needs --rootfs" in done.stdout
    assert (tmp_path / "table.md").read_text() == done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.md"]


def test_files_leave_the_memory_and_stay(tmp_path: Path) -> None:
    series.write_files(tmp_path / "data", 5, 2)
    (tmp_path / "link").symlink_to("/")
    before = {path: path.read_bytes() for path in (tmp_path / "data").rglob("f*")}
    machine.leave_memory(tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "data").rglob("f*")} == before


@pytest.mark.skipif(not os.path.exists(BUSYBOX), reason="needs /usr/bin/busybox (Debian package busybox-static)")
@pytest.mark.parametrize("one", series.SERIES, ids=lambda one: str(one.key))
def test_each_series_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: series.Series) -> None:
    if one.key == "layers" and obstacle():
        pytest.skip(obstacle())
    monkeypatch.setattr(growth, "SETTLE", 0)
    monkeypatch.setattr(series, "UNMATCHED", 10)
    found = growth.measure_size(tmp_path, one, 3, 1)
    assert list(found) == list(one.commands)
    curves = [Curve(one.key, one.title, one.unit, name, one.memory, [point]) for name, point in found.items()]
    text = growth.describe(curves, "2025-01-01", "a machine")
    assert f"**{one.key}**: {one.title}" in text
    assert "| cold | 3 |" in text or "| plan | 3 |" in text
    assert text.endswith("- nothing\n")
