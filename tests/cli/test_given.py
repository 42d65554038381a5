"""Command lines that were read before are not read again, and mean the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.api.repeat.question import Question, question
from builder.cli import given as kept_lines
from builder.cli.given import keep, recall
from tests.support.builds import PROJECT, Cli, Done, context, ran
from tests.support.registry import FakeRegistry, digest_of

TEXT = st.text("ab-= /é", max_size=4)
VALUES = st.one_of(TEXT, st.lists(TEXT).map(tuple), st.booleans(), st.integers(0, 99), st.floats(0, 9), st.none())


@pytest.fixture
def asked(tmp_path: Path) -> Question:
    (tmp_path / "tmp").mkdir()
    return asking(tmp_path, "build", "-t", "x", "--build-arg=T=hidden", ".")


def asking(root: Path, *arguments: str) -> Question:
    found = question(["--root", str(root), *arguments], {})
    assert found is not None
    return found


@given(arguments=st.lists(TEXT, max_size=4), options=st.dictionaries(TEXT, VALUES, max_size=4), root=TEXT)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_kept(tmp_path: Path, arguments: list[str], options: dict[str, Any], root: str) -> None:
    (tmp_path / "tmp").mkdir(exist_ok=True)
    line = asking(tmp_path, "build", *arguments)
    keep(line, root, options)
    assert recall(line) == (root, options)
    assert recall(asking(tmp_path, "build", *arguments, "more")) is None


def test_no_word_of_the_command_line_is_kept(asked: Question) -> None:
    keep(asked, asked.root, {"build_args": ("T=hidden",), "tags": ("x",), "context": ".", "call": "build"})
    assert b"hidden" not in Path(f"{asked.note}.given").read_bytes()
    assert recall(asked) == (asked.root, {"build_args": ("T=hidden",), "tags": ("x",), "context": ".", "call": "build"})


def test_a_file_that_is_damaged_is_none(asked: Question) -> None:
    keep(asked, asked.root, {"tags": ("x",)})
    file = Path(f"{asked.note}.given")
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place])
        assert recall(asked) is None
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert recall(asked) is None


def test_another_version_reads_it_again(asked: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(asked, asked.root, {"tags": ("x",)})
    monkeypatch.setattr(kept_lines, "__version__", "0.0")
    assert recall(asked) is None
    keep(asked, asked.root, {"tags": ("x",)})
    assert recall(asked) is not None


def test_words_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    line = asking(tmp_path, "build", "-tx", "dir\udcff")
    keep(line, line.root, {"context": "dir\udcff"})
    assert recall(line) == (line.root, {"context": "dir\udcff"})
    keep(line, line.root, {"context": "\udcffdir"})  # of no word
    assert recall(line) == (line.root, {"context": "dir\udcff"})


def test_nobody_minds_that_it_cannot_be_kept(asked: Question) -> None:
    os.rmdir(os.path.join(asked.root, "tmp"))
    keep(asked, asked.root, {})
    assert recall(asked) is None


# --- from the command line


def run(cli: Cli, *arguments: str | Path) -> tuple[Done, bool]:
    """A command in a process of its own, and whether it loaded click."""
    script = (
        "import os, sys\nfrom builder.api.repeat.question import question\nfrom builder.cli.program import main\n"
        "try:\n    main(question(sys.argv[1:], os.environ))\nfinally:\n    print('click' in sys.modules)\n"
    )
    command = [sys.executable, "-c", script, *cli.arguments(*arguments)]
    done = subprocess.run(command, env=cli.environ, cwd=PROJECT, capture_output=True, check=False)
    *said, loaded = done.stdout.splitlines(keepends=True)
    return Done(done.returncode, b"".join(said), done.stderr.decode()), loaded == b"True\n"


def test_the_same_command_line_is_not_read_again(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nARG V=0\nCOPY a /\nLABEL v=$V\n", a="1")
    line = ("build", "-q", "-tx", "--build-arg", "V=1 2", "--label=k=v", "--squash", "--rm=true", "--jobs=2", directory)
    first, loaded = run(cli, *line)
    assert (first.status, first.err, loaded) == (0, "", True)
    for text in ("2", "3"):
        (directory / "a").write_text(text)
        done, loaded = run(cli, *line)
        assert (done.status, done.err, loaded) == (0, "", False)
        assert done.out.decode().strip() == cli.image_id("x")
        assert cli.files("x")["a"].content == text.encode()
        labels = json.loads(cli("inspect", "x").out)[0]["Config"]["Labels"]
        assert (labels["v"], labels["k"]) == ("1 2", "v")
    other, loaded = run(cli, *line[:-1], "--no-cache", directory)
    assert (other.status, loaded) == (0, True)


@pytest.mark.parametrize("options", [["-t", "B@D"], ["--memory=lots"], ["--check"], ["--dry-run"], ["--call=targets"]])
def test_it_says_the_same_the_second_time(cli: Cli, tmp_path: Path, options: list[str]) -> None:
    directory = context(tmp_path / "context", "FROM scratch AS One\nCOPY a /\n", a="1")
    assert ran(cli.build("-t", "x", directory)) == ["COPY a /"]
    first, loaded = run(cli, "build", *options, directory)
    assert loaded
    second, _ = run(cli, "build", *options, directory)
    assert second == first
    assert len(list((cli.root / "repeats").glob("*.given"))) == 1


def test_a_wrong_command_line_is_not_kept(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="1")
    cli.build("-t", "x", directory)
    for _ in range(2):
        done, loaded = run(cli, "build", "--tagg", "x", directory)
        assert (done.status, loaded) == (2, True)
        assert "no such option" in done.err


def test_a_push_is_not_read_again_either(cli: Cli, tmp_path: Path) -> None:
    directory = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="1")
    with FakeRegistry() as registry:
        names = [f"{registry.host}/app:1", f"{registry.host}/app:2"]
        for text, reads in (("1", True), ("2", False)):
            (directory / "a").write_text(text)
            cli.build("-t", names[0], "-t", names[1], directory)
            done, loaded = run(cli, "push", "--quiet", *names)
            assert (done.status, done.err, done.out.decode().split(), loaded) == (0, "", names, reads)
            digest = cli.entries()[names[1]]["digest"]
            assert {digest_of(registry.repositories["app"][tag][1]) for tag in "12"} == {digest}
        refused, loaded = run(cli, "push", names[0], "nobody/has:this")
        assert (refused.status, loaded) == (1, True)
        assert run(cli, "push", names[0], "nobody/has:this") == (refused, False)
