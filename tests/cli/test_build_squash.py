"""`--squash`: fewer layers, the same files. What the files are is worked out by code that is not ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builds import Cli, busybox_context, needs_sandbox

pytestmark = needs_sandbox

INSTRUCTIONS = """\
RUN mkdir /d /e /o && echo 1 > /d/one && echo 2 > /d/two && ln /d/one /d/again && ln -s one /d/link && echo o > /o/o
RUN rm /d/two && echo 3 > /d/three && chmod 0700 /e && rm -r /o && mkdir /o && echo p > /o/p
COPY --chown=5:6 a /e/
RUN rm -r /d && echo file > /d && mv /e /moved && touch -d @1000000000 /moved
WORKDIR /w
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = busybox_context(tmp_path / "context", INSTRUCTIONS)
    (made / "a").write_text("a")
    return made


def test_all(cli: Cli, directory: Path) -> None:
    cli.build("-t", "whole", directory)
    cli.build("-t", "flat", "--squash", directory)
    assert len(cli.manifest("whole")["layers"]) == 6
    assert len(cli.manifest("flat")["layers"]) == 1
    assert cli.files("flat") == cli.files("whole")
    assert len(cli.config("flat")["rootfs"]["diff_ids"]) == 1
    assert cli.config("flat")["config"] == cli.config("whole")["config"]
    with_layers = [line for line in cli.config("flat")["history"] if not line.get("empty_layer")]
    assert len(with_layers) == 1
    assert len(cli.config("flat")["history"]) == len(cli.config("whole")["history"]) + 1


def test_only_what_is_new(cli: Cli, directory: Path) -> None:
    first, _, rest = INSTRUCTIONS.partition("\n")
    text = (directory / "Dockerfile").read_text()
    (directory / "Dockerfile").write_text(text.replace(rest, ""))
    cli.build("-t", "below:1", directory)
    assert first in (directory / "Dockerfile").read_text()
    (directory / "Dockerfile").write_text("FROM below:1\n" + rest)
    cli.build("-t", "whole", directory)
    cli.build("-t", "new", "--squash=new", directory)
    below = cli.manifest("below:1")["layers"]
    layers = cli.manifest("new")["layers"]
    assert layers[: len(below)] == below
    assert len(layers) == len(below) + 1
    assert cli.files("new") == cli.files("whole")
    with_layers = [line for line in cli.config("new")["history"] if not line.get("empty_layer")]
    assert len(with_layers) == len(layers)


def test_squashing_again_gives_the_same_image(cli: Cli, directory: Path) -> None:
    cli.build("-t", "x", "--squash", directory)
    identifier = cli.image_id("x")
    done = cli.build("-t", "x", "--squash", directory)
    assert cli.image_id("x") == identifier
    assert done.cached() >= 5


def test_one_layer_stays_as_it_is(cli: Cli, directory: Path) -> None:
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY a /\n")
    cli.build("-t", "x", directory)
    cli.build("-t", "y", "--squash", directory)
    assert cli.manifest("x")["layers"] == cli.manifest("y")["layers"]
