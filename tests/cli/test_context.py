"""`builder context`, and what a build says of its context."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builder.api import context_use
from tests.support.builds import Cli, Done, busybox_context, context, lines, needs_sandbox

IGNORE = "# comment\nnode_modules\nsrc/gen\n!src/gen/keep\n*.log\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return context(
        tmp_path / "context",
        "FROM scratch\nCOPY . /\n",
        node_modules__a__x=b"x" * 5000,
        src__a="a",
        src__gen__keep="keep",
        src__gen__no="no",
    )


def ignore(tree: Path, text: str = IGNORE, name: str = ".dockerignore") -> Path:
    (tree / name).write_text(text)
    return tree


# --- ls


def test_ls_lists_what_a_build_sees(cli: Cli, tree: Path) -> None:
    done = cli("context", "ls", ignore(tree))
    assert lines(done) == [".dockerignore", "Dockerfile", "src/", "src/a", "src/gen/", "src/gen/keep"]
    assert done.err.splitlines() == [
        "4 files, 78B",
        "ignored by .dockerignore: 2 files, 5kB (node_modules/ 5kB, src/gen/no 2B)",
    ]


def test_ls_without_an_ignore_file(cli: Cli, tree: Path) -> None:
    done = cli("context", "ls", tree)
    assert "node_modules/a/x" in lines(done)
    assert "nothing is ignored: there is no .dockerignore or .containerignore" in done.err


def test_ls_with_sizes_is_sorted_by_them(cli: Cli, tree: Path) -> None:
    shown = [row.split() for row in lines(cli("context", "ls", "--sizes", "-n", "4", tree))]
    assert shown == [
        ["SIZE", "FILES", "PATH"],
        ["5kB", "1", "node_modules/"],
        ["5kB", "1", "node_modules/a/"],
        ["5kB", "1", "node_modules/a/x"],
        ["22B", "1", "Dockerfile"],
    ]
    assert cli("context", "ls", "-n", "4", tree).status == 2


def test_ls_as_json(cli: Cli, tree: Path) -> None:
    found = json.loads(cli("context", "ls", "--format", "json", ignore(tree)).out)
    assert (found["context"], found["ignoreFile"], found["files"]) == (str(tree), ".dockerignore", 4)
    assert found["entries"][2] == {"path": "src", "type": "directory", "size": 5, "files": 2}
    assert (found["ignored"]["files"], found["ignored"]["size"]) == (2, 5002)
    assert found["ignored"]["entries"][0] == {"path": "node_modules", "type": "directory", "size": 5000, "files": 1}


def test_the_ignore_file_of_the_dockerfile_counts(cli: Cli, tree: Path) -> None:
    ignore(ignore(tree), "src\n", "Other.dockerignore")
    (tree / "Other").write_text("FROM scratch\n")
    assert "node_modules/" in lines(cli("context", "ls", "-f", tree / "Other", tree))
    assert lines(cli("context", "why", "-C", tree, "-f", tree / "Other", "src/a")) == [
        "src/a: ignored by Other.dockerignore:1: src"
    ]


def test_an_ignore_file_of_containers_counts(cli: Cli, tree: Path) -> None:
    ignore(ignore(tree, ""), "src\n", ".containerignore")
    assert "ignored by .containerignore: 3 files" in cli("context", "ls", tree).err
    assert lines(cli("context", "why", "-C", tree, "src/a")) == ["src/a: ignored by .containerignore:1: src"]


# --- why


def test_why_names_file_line_and_pattern(cli: Cli, tree: Path) -> None:
    paths = [
        "node_modules/a/x",
        "./src/gen/",
        "src/gen/keep",
        "/src/a",
        "x.log",
        "README",
        ".",
        str(tree / "src/gen/no"),
    ]
    assert lines(cli("context", "why", "-C", ignore(tree), *paths)) == [
        "node_modules/a/x: ignored by .dockerignore:2: node_modules",
        "src/gen: ignored by .dockerignore:3: src/gen; something in it is included",
        "src/gen/keep: included by .dockerignore:4: !src/gen/keep",
        "src/a: included: no rule matched",
        "x.log: ignored by .dockerignore:5: *.log (there is no such file)",
        "README: included: no rule matched (there is no such file)",
        ".: included: no rule matched",
        "src/gen/no: ignored by .dockerignore:3: src/gen",
    ]


def test_why_without_an_ignore_file(cli: Cli, tree: Path) -> None:
    assert lines(cli("context", "why", "-C", tree, "src")) == [
        "src: included: there is no .dockerignore or .containerignore"
    ]


def test_why_as_json(cli: Cli, tree: Path) -> None:
    found: list[dict[str, Any]] = json.loads(
        cli("context", "why", "--format", "json", "-C", ignore(tree), "src/gen", "no").out
    )
    assert found == [
        {
            "path": "src/gen",
            "included": False,
            "exists": True,
            "ignoreFile": ".dockerignore",
            "line": 3,
            "pattern": "src/gen",
            "holdsIncluded": True,
        },
        {
            "path": "no",
            "included": True,
            "exists": False,
            "ignoreFile": ".dockerignore",
            "line": None,
            "pattern": None,
            "holdsIncluded": False,
        },
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["ls", "/nonexistent"], 1, "/nonexistent"),
        (["ls", "-"], 2, "is no local directory"),
        (["ls", "https://example.com/x.git"], 2, "is no local directory"),
        (["ls", "-f", "nope", "{tree}"], 1, "nope: there is no such Dockerfile"),
        (["why", "-C", "{tree}", "../x"], 2, "'../x' is not in the context"),
        (["why"], 2, "PATH"),
        (["wy"], 2, "no such command"),
    ],
)
def test_what_is_refused(cli: Cli, tree: Path, arguments: list[str], status: int, text: str) -> None:
    done = cli("context", *(argument.format(tree=tree) for argument in arguments))
    assert (done.status, done.out) == (status, b""), done.err
    assert text in done.err


def test_a_malformed_rule_is_refused(cli: Cli, tree: Path) -> None:
    done = cli("context", "ls", ignore(tree, "a\n[z-a]\n"))
    assert done.status == 1
    assert ".dockerignore:2" in done.err


# --- builds


def warnings(done: Done) -> list[str]:
    return [line for line in done.err.splitlines() if line.startswith("WARNING: ")]


def test_a_large_copy_is_warned_of_once_it_is_read(cli: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_use, "LARGE", 5000)
    first = cli.build("-t", "a", tree)
    assert warnings(first) == [
        "WARNING: Dockerfile:2: 5.03kB were read from the build context, most of it node_modules (5kB),"
        " Dockerfile (22B), src (7B); list what is not needed in .dockerignore ('builder context ls --sizes' shows all)"
    ]
    assert warnings(cli.build("-t", "a", tree)) == []  # cached: nothing was read
    assert warnings(cli.build("-t", "a", ignore(tree))) == []


def test_what_no_copy_selects_is_not_read(cli: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_use, "LARGE", 100)
    (tree / "Dockerfile").write_text("FROM scratch\nCOPY src /\n")
    assert warnings(cli.build(tree)) == []
    (tree / "Dockerfile").write_text("FROM scratch\nCOPY src/a node_modules/a /\n")
    (found,) = warnings(cli.build(tree))
    assert "5kB were read from the build context, most of it node_modules/a/x (5kB), src/a (1B);" in found


@needs_sandbox
def test_a_context_that_is_mounted_is_read_too(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = busybox_context(tmp_path / "context", "RUN --mount=target=/src cat /src/big > /dev/null\n")
    (directory / "big").write_bytes(b"x" * 5_000_000)
    monkeypatch.setattr(context_use, "LARGE", 5_000_000)
    (found,) = warnings(cli.build(directory))
    assert "were read from the build context, most of it big (5MB), base (" in found


def test_sources_that_climb_out(cli: Cli, tmp_path: Path) -> None:
    directory = context(
        tmp_path / "context",
        "FROM scratch AS other\nCOPY ../never /\n"
        "FROM scratch\nCOPY a/../a ./b ../../b/ /1/\nADD ../a /2/\nCOPY --from=scratch ../ /3/\n",
        a="a",
        b__c="c",
    )
    found = warnings(cli.build(directory))
    assert [line.partition(": nothing")[0] for line in found] == [
        "WARNING: Dockerfile:4: COPY ../../b/",
        "WARNING: Dockerfile:5: ADD ../a",
    ]
    assert "this means b inside it." in found[0]


@pytest.mark.parametrize("rules", ["src/gen", "*\n!top", "src\n!src/none"])
def test_a_missing_source_that_is_ignored(cli: Cli, tree: Path, rules: str) -> None:
    (tree / "Dockerfile").write_text("FROM scratch\nCOPY src/gen/no /\n")
    done = cli("build", ignore(tree, rules))
    assert done.status == 1
    pattern = rules.split("\n")[0]
    assert f"help: .dockerignore:1 ({pattern}) hides it; remove that line, or add !src/gen/no below it" in done.err
    (tree / "src/gen/no").unlink()
    done = cli("build", tree)
    assert done.status == 1
    assert "hides it" not in done.err
