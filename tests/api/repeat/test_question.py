"""A build that repeats the one before: the same answer, for as long as nothing changed, and never otherwise."""

from __future__ import annotations

import errno
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.api.options import BuildOptions
from builder.api.public import build
from builder.api.repeat import build as noting
from builder.api.repeat import leave, notes, question
from builder.filesystem import moments
from builder.store.record_names import KEPT_BUILDS, SLACK
from tests.api.repeat.asking import DOCKERFILE, LOG, Asking, build_with, options_with
from tests.support.builds import PROJECT, Cli, Done, context


def test_the_same_words(noted: Asking) -> None:
    assert noted.ask().answer() == ("", LOG)


def test_each_answer_is_recorded_as_a_build(noted: Asking) -> None:
    noted.build()
    began = time.time()
    noted.ask().answer()
    older, newer = (json.loads(path.read_bytes()) for path in sorted((noted.root / "builds").iterdir())[-2:])
    assert newer["build"] != older["build"]
    assert began <= newer["started"] <= time.time()
    assert 0 < newer["seconds"] < 60
    assert newer["image_id"] == older["image_id"]
    for before, after in zip(older["steps"], newer["steps"], strict=True):
        assert ("started" in before) == ("started" in after)
        if "started" in before:
            shift = newer["started"] - older["started"]
            assert after.pop("started") - before.pop("started") == pytest.approx(shift, abs=1e-4)
        assert before == after
    assert newer["text"] == older["text"]


def changes() -> dict[str, Callable[[Asking], object]]:
    """What makes another build of it, or may."""

    def keep_times(asking: Asking) -> None:
        """Another content of the same size with the old time."""
        path = asking.context / "a"
        before = path.stat()
        path.write_text("b")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def to_link(asking: Asking) -> None:
        (asking.context / "dir/b").unlink()
        (asking.context / "dir/b").symlink_to("../a")

    def blobs(asking: Asking) -> list[Path]:
        return list((asking.root / "blobs/sha256").iterdir())

    return {
        "content": lambda asking: (asking.context / "a").write_text("another"),
        "content with the old time": keep_times,
        "content below": lambda asking: (asking.context / "dir/b").write_text("another"),
        "mode": lambda asking: (asking.context / "dir").chmod(0o700),
        "new file": lambda asking: (asking.context / "dir/c").touch(),
        "no file": lambda asking: (asking.context / "dir/b").unlink(),
        "a name": lambda asking: (asking.context / "dir/b").rename(asking.context / "dir/c"),
        "a link": to_link,
        "the Dockerfile": lambda asking: (asking.context / "Dockerfile").write_text("FROM scratch\nCOPY dir /\n"),
        "the ignore file": lambda asking: (asking.context / ".dockerignore").write_text("dir"),
        "an ignore file of its own": lambda asking: (asking.context / "Dockerfile.dockerignore").touch(),
        "an ignore file of containers": lambda asking: (asking.context / ".containerignore").touch(),
        "the context": lambda asking: (
            asking.context.rename(f"{asking.context}.old"), shutil.copytree(f"{asking.context}.old", asking.context)
        ),
        "the configuration": lambda asking: Path(asking.environ["BUILDER_CONFIG"]).write_text("[limits]\nsize = 1\n"),
        "Docker's configuration": lambda asking: (
            context(asking.root.parent / ".docker", "", **{"config.json": '{"proxies": {}}'})
        ),
        "the image's name": lambda asking: Cli(asking.root)("rmi", "x"),
        "another image of the name": lambda asking: build(
            context(asking.root.parent / "other", "FROM scratch\nLABEL a=b\n"), tags=["x"], root=asking.root
        ),
        "the cache": lambda asking: (asking.root / "cache.db").unlink(),
        "all blobs": lambda asking: shutil.rmtree(asking.root / "blobs"),
        "a damaged blob": lambda asking: [path.write_bytes(b"?") for path in blobs(asking)],
        "failed steps": lambda asking: (asking.root / "failed").mkdir(),
        "no layout": lambda asking: (asking.root / "oci-layout").unlink(),
        "an hour": lambda asking: os.utime(asking.ask().note, (time.time() - 3600,) * 2),
        "a clock that was put back": lambda asking: os.utime(asking.ask().note, (time.time() + 60,) * 2),
        "the note": lambda asking: Path(asking.ask().note).unlink(),
        "half a note": lambda asking: os.truncate(asking.ask().note, os.path.getsize(asking.ask().note) // 2),
        "an empty note": lambda asking: os.truncate(asking.ask().note, 0),
    }  # fmt: skip


@pytest.mark.parametrize("change", changes())
def test_what_changed_is_built(noted: Asking, change: str) -> None:
    changes()[change](noted)
    assert not noted.answered()


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.dockerignore", "Dockerfile.containerignore"])
def test_what_a_link_out_of_the_context_leads_to_changed(asking: Asking, name: str) -> None:
    outside = asking.root.parent / "outside"
    outside.write_text("FROM scratch\nCOPY a /\n" if name == "Dockerfile" else "ignored\n")
    (asking.context / name).unlink(missing_ok=True)
    (asking.context / name).symlink_to(outside)
    time.sleep(0.02)
    asking.build()
    asking.build()
    assert asking.answered()
    outside.write_text("FROM scratch\nCOPY dir /\n" if name == "Dockerfile" else "a\n")
    assert not asking.answered()


def test_an_ignore_file_that_links_lead_to_out_of_the_context_and_back(asking: Asking) -> None:
    between = asking.root.parent / "between"
    between.symlink_to(asking.context / "ignored")
    (asking.context / "ignored").write_text("nothing")
    (asking.context / ".dockerignore").unlink()
    (asking.context / ".dockerignore").symlink_to(between)
    time.sleep(0.02)
    asking.build()
    asking.build()
    assert asking.answered()
    between.unlink()
    between.symlink_to(asking.context / "a")
    assert not asking.answered()


def test_a_path_that_leaves_a_link(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    """`link/..` is above what the link leads to, whatever is beside it."""
    elsewhere = asking.root.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to(asking.context / "dir")
    context(elsewhere, DOCKERFILE, a="a", dir__b="b")
    monkeypatch.chdir(elsewhere)
    asking.options = options_with(asking.options, context="link/..", dockerfile="link/../Dockerfile")
    asking.build()
    asking.build()
    assert asking.answered()
    (elsewhere / "a").write_text("another")
    assert asking.answered()
    (asking.context / "a").write_text("another")
    assert not asking.answered()


def test_every_piece_of_a_note(noted: Asking) -> None:
    note = Path(noted.ask().note)
    fields = note.read_bytes().split(b"\0")
    for count in range(len(fields)):
        note.write_bytes(b"\0".join(fields[:count]))
        assert not noted.answered()
    note.write_bytes(b"\0".join(fields))
    assert noted.answered()


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [(["--no-cache"], {}), (["--build-arg", "A=1"], {}), ([], {"SOURCE_DATE_EPOCH": "1"}), ([], {"HTTP_PROXY": "x"})],
)
def test_another_question(noted: Asking, arguments: list[str], environ: dict[str, str]) -> None:
    assert noted.ask(*arguments, **environ).answer() is None


def test_another_directory(noted: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(noted.root)
    assert not noted.answered()


def test_another_start_of_the_machine(noted: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "current_boot", lambda: "another")
    assert not noted.answered()


def test_a_machine_that_does_not_tell_its_start(noted: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "current_boot", lambda: "unknown")
    assert question.question(["build", "."], noted.environ) is None


def test_another_version_of_the_program(noted: Asking, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.mkdir()
    (program / "part.py").write_text("a = 1\n")
    monkeypatch.setattr(noting, "HERE", str(program))
    noted.build()
    (program / "__pycache__").mkdir()  # as Python does while modules are loaded
    (program / "__pycache__/part.pyc").touch()
    assert noted.answered()
    (program / "part.py").write_text("a = 2\n")
    assert not noted.answered()


@pytest.mark.parametrize(
    "options",
    [
        {"no_cache": frozenset({"one"})},
        {"pull": True},
        {"keep_failed": True},
        {"contexts": {"other": "."}},
        {"report": "report.html"},
    ],
)
def test_what_is_not_noted(asking: Asking, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(asking.root.parent)
    asking.build()
    asking.build(**options)
    assert not asking.answered()


def test_what_came_over_a_network_is_not_noted(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    asking.build()
    monkeypatch.setitem(sys.modules, "builder.context.http", sys)
    asking.build()
    assert not asking.answered()


def test_every_option_is_decided_on() -> None:
    """One that is new is not repeatable until somebody says so."""
    others = {
        "contexts", "no_cache", "pull", "attestations", "cache_from", "cache_to", "secrets", "agents",
        "keep_failed", "break_at", "report", "trace", "told_provenance",
    }  # fmt: skip
    assert {*noting._REPEATABLE, *others} == {*BuildOptions.__struct_fields__}


def test_a_time_is_not_repeated(asking: Asking) -> None:
    asking.build()
    asking.build("#1 exporting the image\n#1 DONE 1.5s\n")
    assert not asking.answered()
    asking.build("#1 exporting the image\n#1 DONE 0.0s\n")
    assert asking.answered()


def test_a_context_that_has_just_changed(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files may change again within what is one moment to the file system."""
    monkeypatch.setattr(moments, "_ROUNDED", 60_000_000_000)
    monkeypatch.setattr(moments, "_UNSTAMPED", 60_000_000_000)
    asking.build()
    asking.build()
    assert not asking.answered()


def test_where_people_are_at_work_the_context_is_not_walked(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Dockerfile that was edited just now decides it: a large context would be looked at for nothing."""
    asking.build()
    result = build_with(asking.options)
    walked: list[str] = []
    monkeypatch.setattr(notes, "_add_tree", lambda path, *_, **__: walked.append(path))
    noting.remember(asking.ask(), asking.options, result, "", LOG)
    assert str(asking.context) in walked
    walked.clear()
    monkeypatch.setattr(moments, "_ROUNDED", 60_000_000_000)
    monkeypatch.setattr(moments, "_UNSTAMPED", 60_000_000_000)
    noting.remember(asking.ask(), asking.options, result, "", LOG)
    assert not walked


def change_file(asking: Asking) -> None:
    time.sleep(0.02)
    (asking.context / "a").write_text("changed after it was read")


def change_store(asking: Asking) -> None:
    build(context(asking.root.parent / "other", "FROM scratch\nLABEL a=b\n"), tags=["x"], root=asking.root)


@pytest.mark.parametrize("change", [change_file, change_store])
def test_what_changes_while_the_build_runs(asking: Asking, change: Callable[[Asking], None]) -> None:
    asking.build()
    asked = asking.ask()
    result = build_with(asking.options)
    change(asking)
    noting.remember(asked, asking.options, result, "", LOG)
    assert not asking.answered()


def test_a_large_context(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "_LARGEST", 5)
    asking.build()
    asking.build()
    assert not asking.answered()


def test_the_oldest_builds_are_dropped_by_the_whole_way(noted: Asking) -> None:
    for number in range(KEPT_BUILDS + SLACK):
        (noted.root / "builds" / f"{number:012x}-00000000.json").touch()
    assert not noted.answered()
    noted.build()
    assert noted.answered()


def test_few_notes_are_kept(noted: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Path(noted.ask().note).parent
    monkeypatch.setattr(leave, "KEPT", 3)
    for number in range(5):
        (notes / str(number)).touch()
        os.utime(notes / str(number), (number, number))
    noted.build()
    assert {path.name for path in notes.iterdir()} == {"4", Path(noted.ask().note).name}


def test_a_collection_removes_the_notes(noted: Asking) -> None:
    Cli(noted.root)("prune", "-f")
    assert os.listdir(noted.root / "repeats") == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["images"], ["--root"], ["--root", "", "build", "."], ["--root=", "build", "."], ["--debug", "build"]],
)
def test_what_is_no_such_question(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: False)
    assert question.question(arguments, {}) is None


# --- from the command line


def test_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", DOCKERFILE, a="a", dir__b="b")
    time.sleep(2.1)
    assert cli.spawn("build", "-t", "x", directory).status == 0
    whole = _build_until_noted(cli, "-t", "x", directory)
    assert cli.spawn("build", "-t", "x", directory) == whole
    assert len(_notes(cli)) == 1
    listed = json.loads(cli.spawn("builds", "ls", "--format", "json").out.splitlines()[0])
    assert (listed["Status"], listed["Ran"]) == ("done", "0")
    quiet = [cli.spawn("build", "-q", "-t", "x", directory) for _ in range(2)]
    assert quiet[0] == quiet[1]
    assert quiet[0].out.decode().strip() == cli.image_id("x")
    (directory / "a").write_text("another")
    assert "COPY a /\n#1 because a changed" in cli.spawn("build", "-t", "x", directory).err


def _build_until_noted(cli: Cli, *arguments: str | Path) -> Done:
    """The build that left the note. One that takes a twentieth of a second to export, as here and there one does, says
    so and leaves none."""
    for _ in range(20):
        done = cli.spawn("build", *arguments)
        assert done.status == 0, done.err
        if _notes(cli):
            return done
    raise AssertionError(done.err)


def _open_to_a_reader(fifo: Path) -> int:
    """The end for writing, once somebody waits at the other one."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_answer_can_be_interrupted(cli: Cli, tmp_path: Path, number: signal.Signals) -> None:
    directory = context(tmp_path / "context", DOCKERFILE, a="a", dir__b="b")
    time.sleep(2.1)
    _build_until_noted(cli, "-t", "x", directory)
    (note,) = _notes(cli)
    note.unlink()
    os.mkfifo(note)  # which waits for somebody who writes
    waiting = cli.start("build", "-t", "x", directory)
    writing = _open_to_a_reader(note)
    time.sleep(0.5)  # until it reads: a signal just before the call is seen only after it
    waiting.send_signal(number)
    out, err = waiting.communicate(timeout=20)
    os.close(writing)
    assert (waiting.returncode, out, err) == (130, b"", b"\nerror: interrupted\n")


def test_the_image_s_name_comes_after_the_warnings(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "from scratch as Base\nCOPY a /\n", a="a")
    time.sleep(2.1)
    cli.spawn("build", "-q", directory)
    for _ in range(2):
        command = [sys.executable, "-m", "builder", *cli.arguments("build", "-q", directory)]
        both = subprocess.run(
            command, env=cli.environ, cwd=PROJECT, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ).stdout.decode()
        assert "Base" in both
        assert both.splitlines()[-1].startswith("sha256:")
    assert len(_notes(cli)) == 1


@pytest.mark.parametrize("redirection", ["", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_or_full(cli: Cli, tmp_path: Path, redirection: str) -> None:
    directory = context(tmp_path / "context", DOCKERFILE, a="a", dir__b="b")
    time.sleep(2.1)
    line = f'exec "$@" {redirection}'
    command = ["sh", "-c", line, "-", sys.executable, "-m", "builder", *cli.arguments("build", "-q", directory)]
    for _ in range(3):
        done = subprocess.run(command, env=cli.environ, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    assert len(list((cli.root / "builds").glob("*.json"))) == 3
    assert len(_notes(cli)) == 1


def test_an_answer_to_where_there_is_no_room(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", DOCKERFILE, a="a", dir__b="b")
    time.sleep(2.1)
    command = [sys.executable, "-m", "builder", *cli.arguments("build", "-q", directory)]
    said = []
    for number in range(3):
        with open("/dev/full" if number != 1 else os.devnull, "w") as output:
            done = subprocess.run(
                command, env=cli.environ, cwd=PROJECT, stdout=output, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == (number != 1)
        said.append(done.stderr)
    assert len(_notes(cli)) == 1
    assert said[0].startswith("error: input/output: No space left on device\n")
    assert said == [said[0], "", said[0]]


def test_an_answer_loads_little(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", DOCKERFILE, a="a", dir__b="b")
    time.sleep(2.1)
    _build_until_noted(cli, directory)
    watched = (
        "import os, sys\nos._exit = lambda status: print(*sorted(sys.modules))\n"
        "from builder.__main__ import run\nbefore = {*sys.modules}\nrun()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", watched, *cli.arguments("build", directory)], env=cli.environ, capture_output=True,
        text=True, cwd=PROJECT, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "COPY a /\n#1 CACHED" in done.stderr
    ours = {name for name in done.stdout.split() if name.startswith("builder.")}
    assert ours <= {
        "builder.__main__",
        "builder.api",
        "builder.api.repeat",
        "builder.api.repeat.notes",
        "builder.api.repeat.question",
        "builder.boot",
        "builder.bundle",
        "builder.places",
        "builder.store",
        "builder.store.record_names",
    }
    assert not {"click", "msgspec", "typing", "re", "json", "enum"} & {*done.stdout.split()}


def test_a_terminal_shows_what_moves(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="a")
    primary, secondary = pty.openpty()
    try:
        asked = (
            "import sys, os\nfrom builder.api.repeat.question import question\n"
            "asked = question(sys.argv[1:], os.environ)\nprint(asked.watched, asked.answer())"
        )
        done = subprocess.run(
            [sys.executable, "-c", asked, *cli.arguments("build", directory)], env=cli.environ, stderr=secondary,
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == "True None\n"
    finally:
        os.close(primary)
        os.close(secondary)


def _notes(cli: Cli) -> list[Path]:
    return [path for path in (cli.root / "repeats").iterdir() if path.suffix != ".given"]
