"""`builder builds`, `build --report`, `build --trace`, and what a build says of its critical path."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from tests.support.builds import Cli, busybox_context, context, needs_sandbox


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return context(
        tmp_path / "context",
        "FROM scratch AS one\nCOPY a /a\nFROM scratch AS left\nCOPY a /z\nFROM one AS two\nCOPY b /b\n",
        a="1",
        b="2",
    )


def ids(cli: Cli) -> list[str]:
    return cli("builds", "-q").out.decode().split()


def test_listing(cli: Cli, tree: Path) -> None:
    assert cli("builds").out.decode().split() == ("BUILD ID CREATED NAME TARGET STATUS CACHED RAN DURATION".split())
    cli.build("-t", "app:1", tree)
    cli.build("-t", "app:2", "--target", "two", tree)
    assert cli("build", "-q", "--target", "nothing", tree).status == 1
    form = "{{.Name}} {{.Target}} {{.Status}} {{.Cached}} {{.Ran}}"
    rows = cli("builds", "--format", form).out.decode().splitlines()
    assert rows == ["<none> nothing failed 0 0", "app:2 two done 2 0", "app:1  done 0 2"]
    assert cli("builds", "ls", "-n", "1", "--format", form).out.decode().splitlines() == rows[:1]
    assert len(ids(cli)) == 3
    first = json.loads(cli("builds", "-n", "1", "--format", "json").out)
    assert first["ID"] == ids(cli)[0]
    assert "'nothing'" in first["Error"]
    assert cli("builds", "--format", "{{.Nothing}}").status == 2


def test_show(cli: Cli, tree: Path) -> None:
    cli.build("-t", "app:1", tree)
    shown = cli("builds", "show").out.decode()
    assert "names:      app:1\n" in shown
    assert cli.image_id("app:1") in shown
    assert "because first build" in shown
    assert [line.split()[:3] for line in shown.splitlines() if "COPY" in line] == [
        ["one", "1/1", "ran"],
        ["two", "1/1", "ran"],
        ["left", "not", "needed"],
    ]
    record = json.loads(cli("builds", "show", "app:1", "--format", "json").out)
    assert record["text"] == (tree / "Dockerfile").read_text()
    assert [node["name"] for node in record["stages"]["nodes"]] == ["one", "left", "two", "scratch"]


def test_what_steps_start_from_is_no_step(cli: Cli, tmp_path: Path) -> None:
    tree = context(tmp_path / "context", "FROM base\nCOPY a /\n", a="1")
    named = context(tmp_path / "named", "", b="2")
    cli.build("--build-context", f"base={named}", tree)
    assert cli("builds", "--format", "{{.Cached}} {{.Ran}}").out == b"0 1\n"
    shown = cli("builds", "show").out.decode()
    assert [line.split()[:3] for line in shown.splitlines() if "stage-0" in line] == [["stage-0", "2/2", "ran"]]
    page = cli("builds", "report").out.decode()
    assert '<p class="lead">1 ran in ' in page
    assert set(re.findall(r'href="#(.*?)"', page)) <= set(re.findall(r'id="(.*?)"', page))


def test_which_build(cli: Cli, tree: Path) -> None:
    for name in ("app:1", "app:2", "app:3"):
        cli.build("-t", name, tree)

    def named(*words: str) -> str:
        return str(json.loads(cli("builds", "show", "--format", "json", *words).out)["names"][0])

    assert named() == named("latest") == named("-1") == "app:3"
    assert named("-3") == "app:1"
    assert named("app:2") == "app:2"
    assert named(ids(cli)[2][:6]) == "app:1"
    done = cli("builds", "show", "-4")
    assert (done.status, done.err.splitlines()[0]) == (1, "error: there is no build -4")
    assert cli("builds", "show", "--nothing").status == 2
    assert cli("builds", "logs", "-x").status == 2


def test_removing(cli: Cli, tree: Path) -> None:
    for name in ("app:1", "app:2", "app:3"):
        cli.build("-t", name, tree)
    newest, *_, oldest = ids(cli)
    done = cli("builds", "rm", oldest[:5], "-1", "ffffffffffff")
    assert done.status == 1
    assert done.out.decode().splitlines() == [f"Deleted: {oldest}", f"Deleted: {newest}"]
    assert "there is no build 'ffffffffffff'" in done.err
    assert len(ids(cli)) == 1
    assert cli("builds", "rm").status == 2
    assert cli("builds", "rm", "--all").status == 0
    assert ids(cli) == []
    assert list((cli.root / "builds").iterdir()) == [cli.root / "builds/dropped"]
    assert cli.image_id("app:1")
    assert "no build is recorded yet" in cli("builds", "show").err


@needs_sandbox
def test_logs_are_whole(cli: Cli, tmp_path: Path) -> None:
    tree = busybox_context(
        tmp_path / "context",
        "RUN i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done; printf '\\033[1mend'\n"
        "RUN echo two; exit 3\n",
    )
    done = cli("build", "-q", tree)
    assert done.status == 1
    log = cli("builds", "logs", "-1", "while").out
    assert log == b"".join(b"line %d\n" % number for number in range(30_000)) + b"\x1b[1mend"
    assert cli("builds", "logs", "latest", ":5").out == b"two\n"
    everything = cli("builds", "logs").out
    assert everything.startswith(b"--- [base 2/3] RUN i=0;")
    assert everything.endswith(b"\x1b[1mend\n--- [base 3/3] RUN echo two; exit 3\ntwo\n")
    assert cli("builds", "logs", "-1", "nothing like it").status == 2
    for words in (("-1", "--", "-lt"), ("--", "-1", "-lt"), ("--", "latest", "-lt")):
        assert cli("builds", "logs", *words).out == log  # `[ $i -lt 30000 ]` is in the step's text
    for refused in (("-1", "-lt"), ("-lt", "--", "-lt")):
        done = cli("builds", "logs", *refused)
        assert (done.status, "no such option" in done.err.lower()) == (2, True)


def test_report_and_trace(cli: Cli, tree: Path, tmp_path: Path) -> None:
    page, trace = tmp_path / "page.html", tmp_path / "trace.json"
    cli.build("-t", "app:1", "--report", page, "--trace", trace, tree)
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "COPY b /b" in text
    assert 'class="treemap"' in text
    events = json.loads(trace.read_text())["traceEvents"]
    names = [event["name"] for event in events if event["ph"] == "X"]
    assert names == ["[one 1/1] COPY a /a", "[two 1/1] COPY b /b", "exporting the image"]
    assert cli("builds", "report", "-1").out.decode() == text
    assert cli("builds", "trace").out.decode() == trace.read_text()
    assert cli("builds", "report", "-o", tmp_path / "again.html").status == 0
    assert (tmp_path / "again.html").read_text() == text


def test_a_failed_build_is_reported_too(cli: Cli, tree: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    (tree / "b").unlink()
    assert cli("build", "-q", "--report", page, "--trace", tmp_path / "trace.json", tree).status == 1
    assert '<span class="badge failed">failed</span>' in page.read_text()
    assert (tmp_path / "trace.json").exists()
    (tree / "Dockerfile").write_text("FROM scratch\nNOTHING\n")
    assert cli("build", "-q", "--report", page, tree).status == 1
    assert "NOTHING" in page.read_text()


def test_a_report_that_cannot_be_written(cli: Cli, tree: Path, tmp_path: Path) -> None:
    done = cli("build", "-q", "--report", tmp_path / "no/page.html", tree)
    assert (done.status, done.out) == (1, b"")
    assert "page.html: cannot write: No such file or directory" in done.err
    assert not cli("builds", "-q").out  # found out before anything was built


@pytest.mark.parametrize(
    ("words", "option"),
    [
        *itertools.product(
            (("plan",), ("build", "--dry-run")), ("--report", "--trace", "--iidfile", "--metadata-file")
        ),
        (("build", "--check"), "--report"),
    ],
)
def test_what_is_no_build_has_no_report(
    cli: Cli, tree: Path, tmp_path: Path, words: tuple[str, ...], option: str
) -> None:
    done = cli(*words, option, tmp_path / "file", tree)
    assert done.status == 2
    assert f"{option} tells of a build, and nothing is built" in done.err
    assert not (tmp_path / "file").exists()


@needs_sandbox
def test_what_a_build_waited_for(cli: Cli, tmp_path: Path) -> None:
    tree = busybox_context(
        tmp_path / "context",
        "FROM base AS slow\nRUN sleep 2.2; true\nFROM base AS quick\nRUN sleep 1; true\n"
        "FROM base\nRUN --mount=from=quick,target=/mnt --mount=from=slow,target=/tmp echo x\n",
    )
    lines = [line for line in cli.build("--jobs", "2", tree).err.splitlines() if line.startswith("critical path")]
    assert len(lines) == 1
    found = re.search(r"\[slow 1/1\] ([0-9.]+)s.*; \[quick 1/1\] \(([0-9.]+)s\) costs nothing$", lines[0])
    assert found, lines
    assert float(found[1]) >= 2.2
    assert float(found[2]) >= 1
    assert "critical path" not in cli.build(tree).err  # all cached: nothing to tell

    again = cli.build("--no-cache", "--jobs", "1", tree).err
    assert "for a free job (--jobs)" in again
    assert "costs nothing" not in again
    shown = cli("builds", "show").out.decode()
    (queued,) = re.findall(r"(?m)^(?:slow|quick) 1/1 +ran +([0-9.]+)s +[0-9.]+s ", shown)  # the other one came first
    assert float(queued) > 0.9
