"""Shell completion, in real shells where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.builds import PROJECT, Cli, context

DOCKERFILE = "ARG VERSION=1\nFROM scratch AS build\nCOPY a /\nfrom build as test\nARG DEBUG\nFROM build\n"

CASES = [
    ("builder bu", ["build", "builds"]),
    ("builder image r", ["rm"]),
    ("builder cache ", ["export", "import", "ls", "rm"]),
    ("builder --ro", ["--root"]),
    ("builder build --ta", ["--tag", "--target"]),
    ("builder build --target ", ["build", "test"]),
    ("builder build --target t", ["test"]),
    ("builder build --no-cache-filter b", ["build"]),
    ("builder build --build-arg ", ["VERSION=", "DEBUG="]),
    ("builder build --progress r", ["rawjson"]),
    ("builder build --progress=pl", ["--progress=plain"]),
    ("builder build --platform linux/amd64,linux/ri", ["linux/amd64,linux/riscv64"]),
    ("builder build -o type=o", ["type=oci,dest="]),
    ("builder rmi ", ["other:1", "app:2", "app:1", "127.0.0.1:5000/team/app:3"]),
    ("builder rmi app:", ["app:2", "app:1"]),
    ("builder rmi app:1 127.0.0.1:5", ["127.0.0.1:5000/team/app:3"]),
    ("builder image tag ot", ["other:1"]),
    ("builder history --no-trunc app", ["app:2", "app:1"]),
    ("builder completion ", ["bash", "zsh", "fish"]),
    ("builder build --tag=x --ta", ["--tag", "--target"]),
]
"""A line with the cursor at its end, and the words that it may become."""

SHELL_CASES = [CASES[0], CASES[6], CASES[10], CASES[11], CASES[12], CASES[14], CASES[15]]
"""Those that depend on where a shell cuts words."""

BASH = """
eval "$(builder completion bash)"
compopt() { :; }
for line; do
    COMP_LINE=$line COMP_POINT=${#line} COMP_WORDS=() rest=$line
    while [[ $rest =~ ^[[:space:]]*([:=]+|[^[:space:]:=]+) ]]; do  # where readline cuts
        COMP_WORDS+=("${BASH_REMATCH[1]}") rest=${rest:${#BASH_REMATCH[0]}}
    done
    [[ $line == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    word=${COMP_WORDS[COMP_CWORD]}
    _builder_completion builder "$word"
    [[ $word == [:=]* ]] && word=""
    start=$line
    [[ -n $word ]] && start=${line%"$word"}
    for reply in "${COMPREPLY[@]}"; do printf '%s\\n' "$start$reply"; done
done
"""
ZSH = """
compdef() { :; }
compadd() { print -rl -- ${(P)@[-1]} }
_describe() { print -rl -- ${${(P)3}%%:*} }
eval "$(builder completion zsh)"
for line; do
    words=(${(z)line}); [[ $line == *" " ]] && words+=("")
    CURRENT=$#words
    _builder_completion
done
"""
FISH = """
builder completion fish | source
for line in $argv; complete -C $line; end
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A store with images, a context to stand in, and `builder` in the path."""
    top = tmp_path_factory.mktemp("completion")
    cli = Cli(top / "store")
    directory = context(top / "context", DOCKERFILE, a="a")
    for names in (("127.0.0.1:5000/team/app:3",), ("app:1",), ("app:2",), ("other:1",)):
        cli.build("--target", "build", *(word for name in names for word in ("-t", name)), directory)
    (top / "bin").mkdir()
    program = top / "bin/builder"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m builder "$@"\n')
    program.chmod(0o755)
    path = f"{top / 'bin'}:{os.environ['PATH']}"
    return {**cli.environ, "PATH": path, "BUILDER_ROOT": str(cli.root), "CONTEXT": str(directory), "HOME": str(top)}


def ask(environ: dict[str, str], *command: str) -> list[str]:
    done = subprocess.run(command, env=environ, cwd=environ["CONTEXT"], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(("line", "words"), CASES)
def test_candidates(
    environ: dict[str, str], line: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a bash that cuts words nowhere."""
    monkeypatch.chdir(environ["CONTEXT"])
    asked = {"_BUILDER_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": line.rpartition(" ")[2]}
    cli = Cli(Path(environ["BUILDER_ROOT"]))
    done = cli(environ={**environ, **asked})
    assert done.status == 0
    assert [line.partition(",")[2] for line in done.out.decode().splitlines() if line] == words


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash(environ: dict[str, str]) -> None:
    expected = [line[: line.rindex(" ") + 1] + word for line, words in SHELL_CASES for word in words]
    assert ask(environ, "bash", "--norc", "-c", BASH, "bash", *(line for line, _ in SHELL_CASES)) == expected


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh(environ: dict[str, str]) -> None:
    expected = [word for _, words in SHELL_CASES for word in words]
    assert ask(environ, "zsh", "-f", "-c", ZSH, "zsh", *(line for line, _ in SHELL_CASES)) == expected


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish(environ: dict[str, str]) -> None:
    expected = [word for _, words in SHELL_CASES for word in words]
    done = ask(environ, "fish", "--no-config", "-c", FISH, *(line for line, _ in SHELL_CASES))
    assert sorted(line.partition("\t")[0] for line in done) == sorted(expected)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("builder build ", "dir,"),
        ("builder build -f Do", "file,Do"),
        ("builder --root ", "dir,"),
        ("builder load -i x", "file,x"),
    ],
)
def test_paths_are_left_to_the_shell(environ: dict[str, str], line: str, kind: str) -> None:
    asked = {"_BUILDER_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": line.rpartition(" ")[2]}
    done = Cli(Path(environ["BUILDER_ROOT"]))(environ={**environ, **asked})
    assert done.out.decode() == f"{kind}\n"


def test_nothing_heavy_is_loaded(environ: dict[str, str]) -> None:
    """Names of images need no more than the command's own module."""
    asked = {"_BUILDER_COMPLETE": "bash_complete", "COMP_WORDS": "builder rmi ap", "COMP_CWORD": "ap"}
    code = (
        "import sys, builder.cli.program as m\n"
        "try: m.main()\nexcept SystemExit: pass\n"
        "print(*(n for n in ('lark', 'httpx', 'tqdm', 'pathspec', 'builder.store.describe') if n in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environ, **asked}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["plain,app:2", "plain,app:1", ""]


def test_asking_makes_no_store(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "store")
    asked = {"_BUILDER_COMPLETE": "bash_complete", "COMP_WORDS": f"builder --root {cli.root} rmi ", "COMP_CWORD": ""}
    done = cli(environ=asked)
    assert (done.status, done.out.strip(), cli.root.exists()) == (0, b"", False)


@pytest.mark.parametrize("instruction", ["bash_source", "tcsh_complete", "", "x"])
def test_unknown_questions(tmp_path: Path, instruction: str) -> None:
    done = Cli(tmp_path / "store")(environ={"_BUILDER_COMPLETE": instruction})
    assert (done.status, done.out) == (1, b"")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one(tmp_path: Path, shell: str) -> None:
    done = Cli(tmp_path / "store")("completion", shell)
    assert done.status == 0
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    subprocess.run([shell, "-n"], input=done.out, check=True, cwd=PROJECT)
