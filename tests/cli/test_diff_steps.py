"""The configuration in `builder diff IMAGE@N IMAGE@M`: known for what was built here, and else not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import Cli, context

BASE = (
    "FROM scratch",
    "ENV FIRST=1",
    "COPY a /a",
    "LABEL of=base",
    "ONBUILD ENV TRIGGERED=1",
    "COPY a /b",
    "ENV LAST=1",
)
APP = (
    "FROM base:1 AS one",
    "ENV A=1 B='2 C=3'",
    "COPY a /one",
    "USER 12",
    "MAINTAINER me",
    "FROM one",
    "ARG V",
    "WORKDIR /srv",
    "ENV A=2",
    "EXPOSE 80",
    "COPY a /two",
    'ENTRYPOINT ["a"]',
    "COPY a /three",
    'CMD ["b"]',
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return context(tmp_path / "context", "", a="a")


def build(cli: Cli, directory: Path, name: str, lines: tuple[str, ...], *options: str) -> None:
    (directory / "Dockerfile").write_text("\n".join(lines))
    cli.build("-t", name, *options, directory)


def compared(cli: Cli, before: str, after: str) -> dict[str, Any]:
    done = cli("diff", "--format", "json", before, after)
    assert done.status == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def names(cli: Cli, before: str, after: str) -> list[str] | None:
    found = compared(cli, before, after)["configuration"]
    return None if found is None else [setting["name"] for setting in found]


def layers(lines: tuple[str, ...]) -> list[int]:
    return [number for number, line in enumerate(lines) if line.startswith(("COPY", "WORKDIR"))]


def test_every_step_has_what_the_lines_up_to_the_next_layer_make(cli: Cli, directory: Path) -> None:
    build(cli, directory, "base:1", BASE)
    build(cli, directory, "app:1", APP)
    inherited = len(layers(BASE))
    for count, end in enumerate([*layers(APP), len(APP)], inherited):
        build(cli, directory, "part", APP[:end])
        assert names(cli, f"app:1@{count}", "part") == [], count
    for count, end in enumerate(layers(BASE)):  # the base was built here, too
        build(cli, directory, "part", BASE[:end])
        assert names(cli, f"app:1@{count}", "part") == [], count
    assert names(cli, "app:1@4", "app:1@5") == ["Entrypoint"]
    done = cli("diff", "app:1~1", "app:1")
    assert done.out.decode().splitlines()[-2:] == ["Configuration:", '  Cmd: (none) → ["b"]']


def test_a_rebuild_from_the_cache_tells_its_own(cli: Cli, directory: Path) -> None:
    build(cli, directory, "app", ("FROM scratch", "COPY a /a", "ENV A=1", "COPY a /b"))
    build(cli, directory, "app", ("FROM scratch", "COPY a /a", "ENV A=2", "COPY a /b"))
    assert compared(cli, "app@0", "app@1")["configuration"] == [{"name": "Env.A", "before": None, "after": "2"}]
    assert names(cli, "app@1", "app") == []


def test_labels_of_the_command_line_come_last(cli: Cli, directory: Path) -> None:
    build(cli, directory, "app", ("FROM scratch", "COPY a /a", "COPY a /b"), "--label", "x=y")
    assert names(cli, "app@1", "app") == ["Labels.x"]


@pytest.mark.parametrize(("step", "differs"), [(2, ["Env.A"]), (1, ["Env.LAST", "Env.TRIGGERED", "Env.A", "OnBuild"])])
def test_layers_below_those_that_were_squashed(cli: Cli, directory: Path, step: int, differs: list[str]) -> None:
    build(cli, directory, "base:1", BASE)
    build(cli, directory, "app", ("FROM base:1", "COPY a /c", "ENV A=1", "COPY a /d"), "--squash=new")
    assert len(cli.manifest("app")["layers"]) == 3
    assert names(cli, f"app@{step}", "app") == differs


def test_what_no_build_tells(cli: Cli, directory: Path) -> None:
    build(cli, directory, "app", ("FROM scratch", "COPY a /a", "COPY a /b"))
    for record in (cli.root / "builds").glob("*.json"):
        record.unlink()
    found = compared(cli, "app@1", "app")
    assert found["configuration"] is None
    text = "no recorded build tells that of app@1, and an image keeps only its last"
    assert found["configuration_unknown"] == text
    assert cli("diff", "app@1", "app").out.decode().splitlines()[-1] == f"Configuration: not compared; {text}"
    assert cli("diff", "app@1", "app@1").out.decode().splitlines()[0] == "no difference in files"
