"""Records of past builds: written whole, found by name, read without those that are damaged, and dropped by age."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from builder.errors import StoreError, UsageError
from builder.progress import Reason, Warned
from builder.store import builds as module
from builder.store.builds import DONE, FAILED, Build, Builds, BuiltStep

STEP = BuiltStep(
    step="3", kind="run", name="[build 2/5] RUN make", stage="build", instruction="RUN make", outcome="ran",
    key="k", content="c", parts={"x": "p"}, needs=("1",), reason=Reason("files", "main.c changed", "1"),
    variables=(("ARG", "A", "1"),), log=3,
)  # fmt: skip


@pytest.fixture
def builds(tmp_path: Path) -> Builds:
    (tmp_path / "tmp").mkdir()
    return Builds(str(tmp_path), str(tmp_path / "tmp"))


def record(builds: Builds, at: float, *names: str, project: str = "p", log: bytes = b"") -> Build:
    recorder = builds.begin()
    recorder.started = at
    recorder._path = os.path.join(builds.path, f"{int(at * 1000):012x}-{recorder.build}")
    if log:
        recorder.log("3", log)
    build = Build(
        build=recorder.build, started=at, seconds=1.0, outcome=DONE, project=project, context=".", dockerfile="",
        names=names, steps=(STEP,), warnings=(Warned("odd", "Dockerfile:1"),),
    )  # fmt: skip
    recorder.finish(build)
    return build


def test_what_is_written_is_read(builds: Builds, tmp_path: Path) -> None:
    assert list(builds.all()) == []
    one, two = record(builds, 1000.0, "app:1"), record(builds, 2000.0, "app:2", project="q", log=b"one\n\xff")
    assert list(builds.all()) == [two, one]
    assert list(builds.of("p")) == [one]
    assert one.step("3") == STEP
    assert one.step("4") is None
    assert STEP.position == "build 2/5"
    assert set(builds.keys()) == {"k", "c", "p"}
    log = builds.open_log(two, "3")
    assert log is not None
    with log:
        assert log.read() == b"one\n\xff"
    assert builds.open_log(one, "3") is None
    assert list((tmp_path / "tmp").iterdir()) == []
    assert (tmp_path / "builds").stat().st_mode & 0o777 == 0o700


def test_what_is_of_others_is_not_decoded(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    name = 'D|/a "b"/\N{GREEK SMALL LETTER MU}'
    wanted = record(builds, 1.0, project=name)
    for project in ("D|/other", name.replace('"', ""), ""):
        record(builds, 2.0, project=project)
    named = record(builds, 3.0, "app:1", project=name + "/below")
    decoded = []

    class Decoder:
        def decode(self, data: bytes) -> Build:
            decoded.append(data)
            return msgspec.json.decode(data, type=Build)

    monkeypatch.setattr(module, "_decoder", Decoder)
    assert list(builds.of(name)) == [wanted]
    assert len(decoded) == 1
    assert list(builds.of(named.project)) == [named]
    assert list(builds.of("\udcff")) == []


def test_a_build_is_found_by_digits_or_by_its_image(builds: Builds) -> None:
    with pytest.raises(StoreError, match="no build is recorded"):
        builds.find()
    one, two, three = (record(builds, at, name) for at, name in ((1.0, "app:1"), (2.0, "app:1"), (3.0, "web:latest")))
    assert builds.find() == three
    assert builds.find(one.build) == builds.find(one.build[:7]) == one
    assert builds.find("app:1") == two
    assert builds.find("web") == builds.find("web:latest") == three
    with pytest.raises(StoreError, match="there is no build 'nosuch'"):
        builds.find("nosuch")
    Path(builds.path, f"{1:012x}-{one.build[:-1]}x.json").write_bytes(msgspec.json.encode(one))
    with pytest.raises(UsageError, match="several builds"):
        builds.find(one.build[:-1])


def test_an_image_s_name_counts_more_than_the_first_digits_of_another_build(builds: Builds) -> None:
    other = record(builds, 1.0, "web:latest")
    short = record(builds, 2.0, f"{other.build[:2]}:latest")
    assert builds.find(other.build[:2]) == builds.find(f"{other.build[:2]}:latest") == short
    assert builds.find(other.build[:5]) == other
    record(builds, 3.0, f"{other.build}:latest")
    assert builds.find(other.build) == other, "a whole ID is no name"


def test_a_build_is_found_by_how_new_it_is(builds: Builds) -> None:
    one, two = (record(builds, at, "app:1") for at in (1.0, 2.0))
    assert builds.find("latest") == builds.find("-1") == two
    assert builds.find("-2") == one
    for name in ("-3", "-0", "-x"):
        with pytest.raises(StoreError, match=f"there is no build '?{name}"):
            builds.find(name)


def test_a_damaged_record_counts_as_none(builds: Builds) -> None:
    """As power loss leaves it; and what a kill leaves: logs without a record."""
    good = record(builds, 1.0)
    for text in (b"", b"{", b"[]", b'{"build": 3}', b"\xff"):
        bad = record(builds, 2.0)
        Path(builds.path, f"{2000:012x}-{bad.build}.json").write_bytes(text)
    builds.begin().log("1", b"killed")
    assert list(builds.all()) == [good]
    assert builds.find() == good


def test_texts_that_are_not_unicode(builds: Builds) -> None:
    recorder = builds.begin()
    odd = Build(
        build=recorder.build, started=recorder.started, seconds=0, outcome=FAILED, project="\udcff", context="a\udcfe",
        dockerfile="",
    )  # fmt: skip
    recorder.finish(odd)
    assert builds.find().context == "a\\udcfe"


def test_the_oldest_are_dropped(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BUILDS", 3)
    monkeypatch.setattr(module, "SLACK", 2)
    made = [record(builds, float(at), log=b"x") for at in range(1, 6)]
    builds.trim(logs=True)
    assert len(list(builds.all())) == 5
    assert builds.is_complete()
    made.append(record(builds, 6.0))
    builds.trim(logs=False)
    assert list(builds.all()) == made[:2:-1]
    assert not builds.is_complete()
    assert builds.open_log(made[0], "3") is None
    assert not Path(builds.path, f"{1000:012x}-{made[0].build}").exists()


def test_large_logs_drop_builds_before_their_time(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_LOGS", 10)
    one, two, three = (record(builds, at, log=b"x" * 6) for at in (1.0, 2.0, 3.0))
    builds.trim(logs=False)
    assert list(builds.all()) == [three, two, one]
    builds.trim(logs=True)
    assert list(builds.all()) == [three]
    large = record(builds, 4.0, log=b"x" * 100)
    builds.trim(logs=True)
    assert list(builds.all()) == [large], "the newest is kept whole, however large"


def test_the_logs_of_a_build_that_still_runs_stay(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a build that was killed go with its time."""
    monkeypatch.setattr(module, "KEPT_LOGS", 10)
    killed = Path(builds.path, f"{500:012x}-killed")
    killed.mkdir(parents=True)
    (killed / "1.log").write_bytes(b"x")
    running = builds.begin()
    running._path = os.path.join(builds.path, f"{1000:012x}-{running.build}")
    running.log("1", b"x")
    newer = [record(builds, at, log=b"x" * 10) for at in (2.0, 3.0)]
    builds.trim(logs=True)
    assert list(builds.all()) == newer[1:]
    assert not killed.exists()
    running.log("1", b"y")
    assert Path(running._path, "1.log").read_bytes() == b"xy"
    ended = msgspec.structs.replace(newer[0], build=running.build, started=1.0)
    running.finish(ended)
    builds.trim(logs=True)
    assert not os.path.exists(running._path)


def test_a_log_that_cannot_be_written_fails_nothing(builds: Builds) -> None:
    recorder = builds.begin()
    Path(recorder._path).write_text("in the way")
    recorder.log("1", b"x")
    assert recorder.log_sizes == {}
    os.rmdir(builds._temporary)
    with pytest.raises(StoreError, match="cannot be recorded"):
        recorder.finish(Build(build="x", started=0, seconds=0, outcome=DONE, project="", context="", dockerfile=""))
