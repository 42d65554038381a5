"""What takes space, and freeing it."""

from __future__ import annotations

import fcntl
import json
import os
import random
import time
from pathlib import Path

import pytest

from tests.cli.imaging import DOCKERFILE, NEW, build, rebuild
from tests.support.builds import Cli, busybox_context, context, lines, needs_sandbox, reading
from tests.support.checks import database
from tests.support.mounts import in_use, make_mount


def test_prune_asks(cli: Cli) -> None:
    build(cli, "-t", "a")
    for answer in (b"", b"n\n", b"what\n"):
        refused = cli("prune", "-a", stdin=answer)
        assert refused.status == 1
        assert b"WARNING! This will remove:\n  - all images" in refused.out
    assert len(cli.entries()) == 1
    done = cli("image", "prune", "-a", stdin=b"y\n")
    assert done.status == 0
    assert b"This will remove all images." in done.out
    assert cli.entries() == {}


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (("image", "prune"), b"This will remove all dangling images."),
        (("image", "prune", "--filter", "dangling=1"), b"This will remove all dangling images."),
        (("image", "prune", "--filter", "dangling=false"), b"This will remove all images."),
        (
            ("prune", "--filter", "dangling=false"),
            b"  - all images\n  - all build cache\n  - all cache mounts that no running build uses\n",
        ),
        (("prune",), b"  - all dangling images\n  - unused build cache\n"),
    ],
)
def test_prune_asks_about_what_filters_choose(cli: Cli, arguments: tuple[str, ...], asked: bytes) -> None:
    refused = cli(*arguments, stdin=b"n\n")
    assert refused.status == 1
    assert asked in refused.out


@pytest.mark.parametrize("command", [("prune",), ("image", "prune")])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-a", "--filter", "dangling=true"), "--filter dangling=true contradicts -a"),
        (
            ("--filter", "dangling=true", "--filter", "dangling=0"),
            "--filter dangling=true contradicts dangling=false",
        ),
        (("--filter", "dangling=what"), "invalid filter dangling=what"),
        (("--filter", "until=what"), "what"),
        (("--filter", "what=1"), "there is no filter 'what'"),
    ],
)
def test_prune_refuses_filters_before_it_asks(
    cli: Cli, command: tuple[str, ...], arguments: tuple[str, ...], message: str
) -> None:
    build(cli, "-t", "a")
    for force in ((), ("-f",)):
        refused = cli(*command, *force, *arguments, stdin=b"y\n")
        assert (refused.status, refused.out) == (2, b"")
        assert message in refused.err
    assert list(cli.entries()) == ["docker.io/library/a:latest"]


def test_prune_removes_dangling_images_and_says_what_was_reclaimed(cli: Cli) -> None:
    build(cli, "-t", "a", content="x" * 5000)
    identity = cli.image_id("a")
    build(cli, "-t", "a")
    out = lines(cli("image", "prune", "-f"))
    assert out[:2] == ["Deleted Images:", f"deleted: {identity}"]
    assert out[-1].startswith("Total reclaimed space: ")
    assert list(cli.entries()) == ["docker.io/library/a:latest"]
    assert lines(cli("image", "prune", "-f")) == ["Total reclaimed space: 0B"]


def test_prune_filters(cli: Cli) -> None:
    build(cli, "-t", "labelled")
    build(cli, "-t", "plain", dockerfile="FROM scratch\nCOPY file /\n", epoch=NEW)
    cli("image", "prune", "-af", "--filter", "until=2019-01-01")
    assert len(cli.entries()) == 2
    cli("image", "prune", "-af", "--filter", "label=stage=two")
    cli("image", "prune", "-af", "--filter", "label!=stage", "--filter", "until=2020-06-01")
    assert len(cli.entries()) == 2
    cli("image", "prune", "-af", "--filter", "label!=stage")
    assert list(cli.entries()) == ["docker.io/library/labelled:latest"]
    cli("prune", "-af", "--filter", "until=2020-06-01")
    assert cli.entries() == {}


def test_prune_of_the_cache_alone_keeps_the_images(cli: Cli) -> None:
    build(cli, "-t", "a")
    build(cli, "-t", "a", content="x")
    asked = cli("prune", "-a", "--cache", stdin=b"n\n").out
    assert b"remove:\n  - all build cache\n  - all cache mounts that no running build uses\n  - all kept" in asked
    assert b"remove:\n  - unused build cache\n  - all cache mounts" in cli("prune", "--cache", stdin=b"n\n").out
    assert "there is no filter 'label'" in cli("prune", "--cache", "-f", "--filter", "label=x").err
    assert b"Total reclaimed space: 0B" in cli("prune", "--cache", "-f").out, "images have it all, named or not"
    assert b"records" not in cli("prune", "-a", "--cache", "-f", "--filter", "until=1h").out
    out = cli("prune", "-a", "--cache", "-f").out
    assert b"Deleted build cache records: " in out
    assert b"Deleted Images" not in out
    assert len(cli.entries()) == 2
    assert cli("export", "a", "-o", os.devnull).status == 0
    assert rebuild(cli) == 0


def test_prune_keeps_cache_that_images_have_and_recent_cache(cli: Cli) -> None:
    build(cli, "-t", "a")
    build(cli, "-t", "b", content="x")
    cli("rmi", "b")
    assert "Deleted build cache records" not in cli("prune", "-f", "--filter", "until=1h").out.decode()
    assert b"Deleted build cache records: " in cli("prune", "-f").out
    context(cli.root.parent / "context", DOCKERFILE, file="content")
    assert rebuild(cli) == 1


def build_three(cli: Cli) -> Path:
    """Build an image of three layers, each of some 20 kB, and remove it: they are build cache now. The context."""
    directory = context(
        cli.root.parent / "context",
        "FROM scratch\nCOPY a /\nCOPY b /\nCOPY c /\n",
        **{name: random.Random(name).randbytes(20_000) for name in "abc"},
    )
    cli.build("-t", "a", directory)
    assert cli("rmi", "a").status == 0
    return directory


@pytest.mark.parametrize(
    ("options", "cached"),
    [
        (("--max-used-space", "50k"), 2),
        (("--max-used-space", "30KB"), 1),
        (("--max-used-space", "1"), 0),
        (("--max-used-space", "0"), 0),
        (("--max-used-space", "1g"), 3),
        (("--max-used-space", "1", "--reserved-space", "0.05m"), 2),
        (("--keep-storage", "30720"), 1),
        (("--min-free-space", "1"), 3),
        (("--min-free-space", "4096t"), 0),
        (("--min-free-space", "4096t", "--reserved-space", "30 KiB"), 1),
        (("--max-used-space", "1", "--filter", "until=1h"), 3),
        (("-a", "--max-used-space", "50k", "--cache"), 2),
    ],
)
def test_prune_to_a_limit_removes_the_least_recently_used_first(
    cli: Cli, options: tuple[str, ...], cached: int
) -> None:
    """Of steps that stand on each other that is the last one: without those below it nothing would find it."""
    directory = build_three(cli)
    rows = {row["Type"]: row for row in map(json.loads, lines(cli("du", "--format", "json")))}
    assert rows["Build Cache"]["Size"].startswith("60")
    out = lines(cli("prune", "-f", *options))
    assert out[-1].startswith("Total reclaimed space: 0B") == (cached == 3)
    assert any(line.startswith("Deleted build cache records: ") for line in out) == (cached < 3)
    assert cli.build(directory).cached() == cached


def test_prune_to_a_limit_asks_and_leaves_what_images_have(cli: Cli) -> None:
    build_three(cli)
    build(cli, "-t", "kept")
    asked = cli("prune", "--cache", "--max-used-space", "30k", stdin=b"n\n").out
    assert b"remove:\n  - build cache and cache mounts that were not used for longest, until" in asked
    assert cli("prune", "--cache", "-af", "--max-used-space", "1").status == 0
    assert "docker.io/library/kept:latest" in cli.entries()
    assert rebuild(cli) == 1
    assert cli("prune", "-af", "--max-used-space", "1g").status == 0
    assert cli.entries() == {}
    assert rebuild(cli) == 1


DAY = 86400.0


def sizes(cli: Cli) -> dict[str, dict[str, str]]:
    return {row["Type"]: row for row in map(json.loads, lines(cli("du", "--format", "json")))}


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ((), ""),
        (("-a",), ""),
        (("--cache",), ""),
        (("-a", "--cache"), ""),
        (("--filter", "until=36h"), "1"),
        (("-a", "--filter", "until=12h"), ""),
        (("--cache", "--max-used-space", "50k"), "12"),
        (("--cache", "--max-used-space", "30k"), "1"),
        (("-a", "--reserved-space", "70k"), "123"),
        (("--cache", "--max-used-space", "1", "--filter", "until=60h"), "12"),
        (("--filter", "label=x"), "123"),
    ],
)
def test_prune_removes_cache_mounts(cli: Cli, options: tuple[str, ...], left: str) -> None:
    """As in BuildKit also without -a, by their last use."""
    for number in range(1, 4):
        make_mount(cli.root, str(number) * 32, "npm", used=time.time() - number * DAY, a=b"x" * 20_000)
    row = sizes(cli)["Cache Mounts"]
    assert (row["TotalCount"], row["Active"], row["Reclaimable"]) == ("3", "0", "60kB (100%)")
    out = lines(cli("prune", "-f", *options))
    assert "".join(sorted(name[0] for name in os.listdir(cli.root / "mounts"))) == left
    assert (f"Deleted cache mounts: {3 - len(left)}" in out) == (len(left) < 3)
    assert out[-1] == f"Total reclaimed space: {(3 - len(left)) * 20}kB".replace(" 0kB", " 0B")
    assert cli.leftovers() == []


def test_prune_of_images_leaves_cache_mounts(cli: Cli) -> None:
    path = make_mount(cli.root, "1" * 32, "npm", a="x")
    assert cli("image", "prune", "-af").status == 0
    assert path.exists()


@pytest.mark.parametrize("mode", [fcntl.LOCK_SH, fcntl.LOCK_EX])
@pytest.mark.parametrize("options", [(), ("-a",), ("-a", "--cache", "--max-used-space", "1")])
def test_cache_mounts_that_a_step_has_stay(cli: Cli, options: tuple[str, ...], mode: int) -> None:
    old, new = (make_mount(cli.root, digit * 32, "npm", used=1.0, a=b"x" * 20_000) for digit in "12")
    with in_use(old, mode):
        row = sizes(cli)["Cache Mounts"]
        assert (row["TotalCount"], row["Active"], row["Reclaimable"]) == ("2", "1", "20kB (50%)")
        assert cli("prune", "-f", *options).status == 0
    assert (old.exists(), new.exists()) == (True, False)
    assert cli("prune", "-f", *options).status == 0
    assert not old.exists()


@needs_sandbox
def test_cache_mounts_that_a_running_build_used_stay(cli: Cli, tmp_path: Path) -> None:
    """Its next step finds there what the last one left."""
    directory = busybox_context(
        tmp_path / "context",
        "RUN --mount=type=cache,id=m,target=/c echo one > /c/f\n"
        "RUN --mount=type=cache,id=go,target=/go echo between; while [ ! -e /go/go ]; do sleep 0.05; done\n"
        "RUN --mount=type=cache,id=m,target=/c cat /c/f > /f\n",
    )
    other = make_mount(cli.root, "1" * 32, "other", a="x")
    with reading(cli.start("build", "-t", "x", "--progress", "plain", directory)) as log:
        log.wait_for("between", timeout=60)
        assert cli("prune", "-af").status == 0
        assert not other.exists()
        for path in (cli.root / "mounts").iterdir():
            if (path / "id").read_text() == "go":
                (path / "data/go").touch()
        assert log.process.wait(60) == 0, log.text
    assert cli.files("x")["f"].content == b"one\n"
    assert cli("prune", "-f").status == 0
    assert os.listdir(cli.root / "mounts") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max-used-space", "much"), "invalid size 'much' for --max-used-space"),
        (("--keep-storage", "-1"), "invalid size '-1' for --reserved-space"),
        (("--min-free-space", "20%"), "invalid size '20%' for --min-free-space"),
        (("--max-used-space", "1g", "--filter", "label=a"), "--filter label chooses images"),
    ],
)
def test_prune_refuses_wrong_limits_before_it_asks(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    refused = cli("prune", *arguments, stdin=b"y\n")
    assert (refused.status, refused.out) == (2, b"")
    assert message in refused.err


@pytest.mark.parametrize(
    ("arguments", "days", "goes"),
    [
        (("prune",), 29, False),
        (("prune",), 31, True),
        (("prune", "--filter", "until=48h"), 1, False),
        (("prune", "--filter", "until=48h"), 3, True),
        (("prune", "--filter", "label=a"), 31, False),
        (("image", "prune"), 31, False),
    ],
)
def test_prune_forgets_what_was_derived_and_is_not_used(
    cli: Cli, arguments: tuple[str, ...], days: int, goes: bool
) -> None:
    """Parsed Dockerfiles, fingerprints of files: nothing goes with them, and each file that changes leaves another."""
    build(cli, "-t", "a")
    database(cli, f"UPDATE memos SET used = used - {days * 86400} WHERE holds = ''")
    before = database(cli, "SELECT count(*) FROM memos WHERE holds = ''")
    assert cli(*arguments, "-f").status == 0
    assert before != [(0,)]
    assert database(cli, "SELECT count(*) FROM memos WHERE holds = ''") == ([(0,)] if goes else before)


def test_du(cli: Cli) -> None:
    build(cli, "-t", "a")
    build(cli, "-t", "a", content="x" * 3000)
    rows = {row["Type"]: row for row in map(json.loads, lines(cli("du", "--format", "json")))}
    assert rows["Images"]["TotalCount"] == "2"
    assert rows["Images"]["Active"] == "1"
    assert rows["Images"]["Reclaimable"] != "0B"
    assert int(rows["Build Cache"]["TotalCount"]) >= 2
    assert rows["Build Cache"]["Active"] == rows["Build Cache"]["TotalCount"]
    assert lines(cli("du"))[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    verbose = cli("du", "-v").out.decode()
    assert "SHARED SIZE" in verbose
    assert "[stage-0] COPY file /dir/file" in verbose
    cli("prune", "-af")
    assert all(row.split()[-2] == "0B" for row in lines(cli("du"))[1:])


def cached(cli: Cli) -> Path:
    """A store with a layer that an image has, one that none has, and two cache mounts. The context of the second."""
    build(cli, "-t", "kept")
    directory = context(cli.root.parent / "other", "FROM scratch AS other\nCOPY a /b\n", a="aaa")
    cli.build("-t", "gone", directory)
    assert cli("rmi", "gone").status == 0
    make_mount(cli.root, "1" * 32, "npm", used=1.0, a="a")
    make_mount(cli.root, "2" * 32 + ".1", "/root/.cache", used=2.0, b="bb")
    return directory


STEP, OTHER, NPM, CACHE = (
    "[stage-0] COPY file /dir/file",
    "[other] COPY a /b",
    "cached mount npm",
    "cached mount /root/.cache",
)


@pytest.mark.parametrize(
    ("filters", "chosen"),
    [
        (["type=regular"], {STEP, OTHER}),
        (["type=exec.cachemount"], {NPM, CACHE}),
        (["type!=exec.cachemount"], {STEP, OTHER}),
        (["type~=^exec"], {NPM, CACHE}),
        (["id=11111"], {NPM}),
        (["id=^2{9}"], {CACHE}),
        (["id!=" + "1" * 32, "type=exec.cachemount"], {CACHE}),
        (["id~=[12]{32}"], {NPM, CACHE}),
        (["description=cached mount npm"], {NPM}),
        (["description~=COPY"], {STEP, OTHER}),
        (["description~=COPY", "description~=other"], {OTHER}),
        (["description!=cached mount npm", "mutable=true"], {CACHE}),
        (["shared=true"], {STEP}),
        (["shared=0"], {OTHER, NPM, CACHE}),
        (["private=true", "immutable=true"], {OTHER}),
        (["inuse=false"], {STEP, OTHER, CACHE}),
        (["inuse=true"], {NPM}),
        (["until=24h"], {NPM, CACHE}),
        (["until=24h", "id=11111"], {NPM}),
    ],
)
def test_filters_choose_of_the_build_cache(cli: Cli, filters: list[str], chosen: set[str]) -> None:
    """The same for `du`, which shows it, and `prune`, which leaves what is in use."""
    cached(cli)
    options = [word for text in filters for word in ("--filter", text)]

    def shown(*options: str) -> set[str]:
        return set(lines(cli("du", *options, "--format", "{{.Description}}")))

    with in_use(cli.root / "mounts" / ("1" * 32)):
        assert shown(*options) == chosen
        assert cli("prune", "--cache", "-af", *options).status == 0
        assert shown("--filter", "id=.") == {STEP, OTHER, NPM, CACHE} - (chosen - {NPM})
    assert list(cli.entries()) == ["docker.io/library/kept:latest"]


def test_filters_without_all_leave_what_images_have(cli: Cli) -> None:
    directory = cached(cli)
    mounts = sorted(os.listdir(cli.root / "mounts"))
    before = database(cli, "SELECT count(*) FROM memos WHERE holds = ''")
    database(cli, "UPDATE memos SET used = 0")
    for limit, records in (("1g", b""), ("1", b"Deleted build cache records: ")):
        out = cli("prune", "--cache", "-f", "--filter", "type=regular", "--max-used-space", limit).out
        assert records in out
        assert (b"Deleted" in out) == bool(records)
    assert sorted(os.listdir(cli.root / "mounts")) == mounts
    assert database(cli, "SELECT count(*) FROM memos WHERE holds = ''") == before, "nothing but what the filters choose"
    assert cli.build(directory).cached() == 0
    assert rebuild(cli) == 1


def test_du_of_filters(cli: Cli) -> None:
    cached(cli)
    table = lines(cli("du", "--filter", "mutable=1"))
    assert table[0].split()[:4] == ["CACHE", "ID", "TYPE", "LAST"]
    assert [row.split()[:2] for row in table[1:]] == [
        ["1" * 12, "exec.cachemount"],
        ["2" * 12 + ".1", "exec.cachemount"],
    ]
    row = json.loads(cli("du", "--filter", "id=222", "--format", "json").out)
    assert (row["ID"], row["Size"], row["Shared"], row["InUse"]) == ("2" * 32 + ".1", "14B", "false", "false")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("du", "--filter", "type=source.local"), "there is no build cache of type 'source.local'"),
        (("prune", "--cache", "--filter", "type!=frontend"), "the types are regular and exec.cachemount"),
        (("du", "--filter", "parents=x"), "there is no filter 'parents'"),
        (("prune", "--cache", "--filter", "parents=x"), "there is no filter 'parents'"),
        (("du", "--filter", "inuse=perhaps"), "invalid filter inuse=perhaps"),
        (("du", "--filter", "id=("), "invalid filter id=("),
        (("prune", "--filter", "type=regular"), "--filter type chooses build cache"),
        (("image", "prune", "--filter", "type=regular"), "'builder prune --cache' removes that alone"),
    ],
)
def test_wrong_filters_of_the_build_cache(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    refused = cli(*arguments, stdin=b"y\n")
    assert (refused.status, refused.out) == (2, b"")
    assert message in refused.err
