"""ShellCheck's remarks: where they are in the Dockerfile, what is told to ShellCheck, and what skips it."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from pathlib import Path

import pytest

from builder.api.call import check
from builder.api.options import BuildOptions
from builder.api.shellcheck import find_shellcheck
from builder.errors import BuilderError

PROGRAM = find_shellcheck(os.environ)
needs_shellcheck = pytest.mark.skipif(PROGRAM is None, reason="needs ShellCheck (the extra `shellcheck`)")
STUB = """\
#!{python}
import json, sys
paths = [word for word in sys.argv[1:] if not word.startswith("--")]
with open({log!r}, "a") as log:
    json.dump({{"arguments": sys.argv[1:], "texts": [open(path).read() for path in paths]}}, log)
    log.write("\\n")
comments = [
    {{"file": path, "line": len(open(path).read().splitlines()), "endLine": 1, "column": 3, "endColumn": 4,
     "level": "info", "code": 2086, "message": "stub", "fix": None}} for path in paths
]
print(json.dumps({{"comments": comments}}))
sys.exit(1)
"""


def remarks(tmp_path: Path, dockerfile: str, **environ: str) -> list[tuple[str, int, int]]:
    """ShellCheck's remarks: rule, line, column."""
    context = tmp_path / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(dockerfile)
    options = BuildOptions(
        context=str(context), root=str(tmp_path / "root"), environ={"PATH": os.environ["PATH"], **environ}
    )
    result = check(options)
    if result.error is not None:
        raise result.error
    return [
        (finding.rule.removeprefix("ShellCheck/"), finding.range.start, finding.column)
        for finding in result.findings
        if finding.range and finding.rule.startswith("ShellCheck/")
    ]


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called shellcheck on the PATH, that writes down how it was called; the path of what it wrote."""
    directory = tmp_path / "bin"
    directory.mkdir()
    log = tmp_path / "log"
    program = directory / "shellcheck"
    program.write_text(STUB.format(python=sys.executable, log=str(log)))
    program.chmod(0o755)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "nothing"))
    return log


def called(log: Path) -> list[dict[str, list[str]]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_a_program_on_the_path(tmp_path: Path, stub: Path) -> None:
    text = "FROM scratch\nARG name\nARG UPPER=1\nRUN true \\\n  && echo $name\n"
    assert remarks(tmp_path, text, PATH=str(tmp_path / "bin")) == [("SC2086", 4, 7)]
    (call,) = called(stub)
    assert call["arguments"][:3] == ["--norc", "--format=json1", "--shell=sh"]
    assert call["texts"] == ['export name="$(:)"\ntrue   && echo $name\n']


def test_shells(tmp_path: Path, stub: Path) -> None:
    text = """\
FROM scratch
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]
RUN one
SHELL ["/bin/ash", "-c"]
RUN two
SHELL ["pwsh", "-Command"]
RUN three
RUN <<EOF
#!/usr/bin/env bash
four
EOF
RUN <<EOF
#!/usr/bin/python3
five
EOF
RUN ["six"]
"""
    found = remarks(tmp_path, text, PATH=str(tmp_path / "bin"))
    assert found == [("SC2086", 3, 7), ("SC2086", 5, 7), ("SC2086", 10, 3)]
    assert {call["arguments"][2]: call["texts"] for call in called(stub)} == {
        "--shell=bash": ["set -e\none\n", "#!/usr/bin/env bash\nfour\n"],
        "--shell=dash": ["two\n"],
    }


@pytest.mark.parametrize(
    "text",
    [
        "# check=skip=ShellCheck\nFROM scratch\nRUN ls\n",
        "# check=skip=all\nFROM scratch\nRUN ls\n",
        "FROM scratch\n# check=skip=ShellCheck\nRUN ls\n",
        "FROM scratch\nCOPY a /\n",
    ],
)
def test_not_wanted(tmp_path: Path, stub: Path, text: str) -> None:
    assert remarks(tmp_path, text, PATH=str(tmp_path / "bin")) == []
    assert called(stub) == []


def test_a_skipped_remark(tmp_path: Path, stub: Path) -> None:
    text = "FROM scratch\n# check=skip=ShellCheck/SC2086\nRUN ls\n"
    assert remarks(tmp_path, text, PATH=str(tmp_path / "bin")) == []
    assert len(called(stub)) == 1


def test_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert remarks(tmp_path, "FROM scratch\nRUN ls $x\n", PATH=str(tmp_path)) == []


@pytest.mark.parametrize(
    ("script", "cause"), [("echo no >&2; exit 4", "ShellCheck failed: no"), ("echo '{}'", "not the JSON")]
)
def test_a_broken_program(tmp_path: Path, stub: Path, script: str, cause: str) -> None:
    (tmp_path / "bin/shellcheck").write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(BuilderError, match=cause):
        remarks(tmp_path, "FROM scratch\nRUN ls\n", PATH=f"{tmp_path / 'bin'}:/bin:/usr/bin")


@needs_shellcheck
def test_positions(tmp_path: Path) -> None:
    text = """\
FROM scratch
ARG given
ENV other=1
RUN echo "$given" $other && \\
    # a comment
    \\
    echo $unknown
RUN <<-EOF
\ttrue
\t  echo $other
\tEOF
RUN cat <<EOF && \\
  echo $other
$other
EOF
"""
    assert remarks(tmp_path, text) == [
        ("SC2086", 4, 19),
        ("SC2154", 7, 10),
        ("SC2086", 7, 10),
        ("SC2086", 10, 9),
        ("SC2086", 13, 8),
    ]


@needs_shellcheck
def test_directives(tmp_path: Path) -> None:
    text = """\
FROM scratch
ENV a=1
# shellcheck disable=SC2086
RUN echo $a
RUN true && \\
    # shellcheck disable=SC2086
    echo $a
RUN echo $a
"""
    assert remarks(tmp_path, text) == [("SC2086", 8, 10)]


@needs_shellcheck
def test_the_shell_of_the_stage(tmp_path: Path) -> None:
    text = """\
FROM scratch
RUN [[ -f a ]]
SHELL ["/bin/bash", "-c"]
RUN [[ -f a ]]
RUN cd /a
SHELL ["bash", "-ec"]
RUN cd /a
"""
    assert remarks(tmp_path, text) == [("SC3010", 2, 5), ("SC2164", 5, 5)]


def test_triggers_are_read_once(tmp_path: Path, stub: Path) -> None:
    text = """\
FROM scratch AS base
ARG here=1
ENV kept=1
ONBUILD RUN echo $here \\
  $kept
ONBUILD CMD echo
# check=skip=ShellCheck
ONBUILD RUN not this
FROM base
RUN two
"""
    found = remarks(tmp_path, text, PATH=str(tmp_path / "bin"))
    assert found == [("SC2086", 4, 15), ("SC2086", 10, 7)]
    assert [text for call in called(stub) for text in call["texts"]] == [
        'export kept="$(:)"\necho $here   $kept\n',
        'export here="$(:)" kept="$(:)"\ntwo\n',
    ]


@needs_shellcheck
def test_positions_in_triggers(tmp_path: Path) -> None:
    text = """\
FROM scratch
ENV a=1
onbuild  run --mount=type=cache,target=/c true && \\
   # a comment
   echo $a
ONBUILD RUN <<-EOF
\ttrue
\t  echo $unknown
EOF
ONBUILD RUN ["echo", "$a"]
ONBUILD COPY --chown=$a . .
"""
    assert remarks(tmp_path, text) == [("SC2086", 5, 9), ("SC2154", 8, 9), ("SC2086", 8, 9)]
