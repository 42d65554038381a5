"""Long chains of commands, whose small layers are folded: what each one sees, and what they make."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.filesystem.fold import Unfoldable
from builder.sandbox.client import Sandbox
from builder.sandbox.command import Command, Result
from builder.solver.folds import FEWEST, LARGEST, Folds
from builder.store.store import Store
from tests.support.builds import Cli, busybox_context, needs_sandbox

STEPS = 3 * FEWEST + 5


@pytest.fixture
def lowers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many directories each command lay on."""
    found: list[int] = []
    run = Sandbox.run

    def counted(
        sandbox: Sandbox, command: Command, tell: Callable[[int, bytes], None], meanwhile: Callable[[], object] | None
    ) -> Result:
        found.append(len(command.lowers))
        return run(sandbox, command, tell, meanwhile)

    monkeypatch.setattr(Sandbox, "run", counted)
    return found


def chain(steps: int) -> str:
    """Each step adds a file, changes one and removes one, at the top, in a directory of its own and in one that all
    have; and looks whether it sees what it should."""
    lines, there = ["RUN mkdir -p /all && echo 0 > /all/count"], set[int]()
    for number in range(steps):
        gone = number * 7 % steps
        commands = [
            f'test "$(cat /all/count)" = {number}',
            f'test "$(ls /all /top* | grep -c f)" = {len(there)}',
            f"mkdir -p /own{number % 5}/d && echo {number} > /own{number % 5}/d/f && ls /own{number % 5}/d > /dev/null",
            f"echo {number} > /top{number}; echo {number + 1} > /all/count; echo {number} > /all/f{number}",
        ]
        there.add(number)
        if gone in there:
            commands.append(f"rm /all/f{gone}")
            there.remove(gone)
        if number % 5 == 4:
            commands.append("rm -r /own0 && mkdir /own0")
        lines.append("RUN " + " && ".join(commands))
    return "\n".join(lines) + "\n"


@needs_sandbox
def test_a_long_chain_makes_the_same_layers_and_lies_on_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lowers: list[int]
) -> None:
    directory = busybox_context(tmp_path / "context", chain(STEPS))
    folded = Cli(tmp_path / "folded")
    folded.build("-t", "x", directory)
    assert len(lowers) == STEPS + 1
    assert max(lowers) <= 2 + FEWEST + STEPS // FEWEST
    assert os.listdir(folded.root / "tmp") == []
    lowers.clear()
    monkeypatch.setattr(Folds, "fold", lambda *_: None)
    plain = Cli(tmp_path / "plain")
    plain.build("-t", "x", directory)
    assert max(lowers) > STEPS
    assert {path: entry._replace(mtime=0) for path, entry in folded.files("x").items()} == {
        path: entry._replace(mtime=0) for path, entry in plain.files("x").items()
    }


@needs_sandbox
def test_stages_that_begin_alike_and_copies_between(tmp_path: Path, lowers: list[int]) -> None:
    base = "".join(f"RUN echo {number} > /f{number}\n" for number in range(FEWEST + 2))
    stages = "".join(
        f"FROM base AS s{stage}\n"
        + "".join(f"RUN test -f /f{FEWEST} && echo {stage} > /g{number}\n" for number in range(FEWEST))
        + f"COPY Dockerfile /d{stage}\nRUN test -f /g0 && rm /f0 /g0 && ls / > /seen\nRUN test ! -e /g0\n"
        for stage in range(2)
    )
    last = "FROM scratch\nCOPY --from=s0 /seen /s0\nCOPY --from=s1 /seen /s1\n"
    directory = busybox_context(tmp_path / "context", base + stages + last)
    cli = Cli(tmp_path / "store")
    cli.build("-t", "x", directory)
    assert max(lowers) < 2 * FEWEST
    names = {name: set((cli.files("x")[name].content or b"").decode().split()) for name in ("s0", "s1")}
    assert {"g1", f"f{FEWEST}", "d0"} <= names["s0"]
    assert not {"g0", "f0", "d1"} & names["s0"]
    assert {"g1", f"f{FEWEST}", "d1"} <= names["s1"]
    assert not {"g0", "f0", "d0"} & names["s1"]


@needs_sandbox
def test_links_to_files_of_folded_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lowers: list[int]) -> None:
    """Each is a file of its own in the image, as it is without folds."""
    lines = [f"RUN echo {number} > /f{number}" for number in range(FEWEST + 2)]
    lines += ["RUN ln /f1 /g1 && ln /f2 /g2 && echo more >> /g2", "RUN stat -c %h /f1 /g1 > /links", "RUN rm /f1 /f2"]
    directory = busybox_context(tmp_path / "context", "\n".join(lines) + "\n")
    folded, plain = Cli(tmp_path / "folded"), Cli(tmp_path / "plain")
    folded.build("-t", "x", directory)
    assert max(lowers) < FEWEST + 4
    monkeypatch.setattr(Folds, "fold", lambda *_: None)
    plain.build("-t", "x", directory)
    assert {path: entry._replace(mtime=0) for path, entry in folded.files("x").items()} == {
        path: entry._replace(mtime=0) for path, entry in plain.files("x").items()
    }


def small(root: Path, count: int) -> list[str]:
    """Directories of layers, top first."""
    found: list[str] = []
    for number in range(count):
        (root / str(number)).mkdir(parents=True)
        (root / str(number) / f"f{number}").write_text("x")
        found.insert(0, str(root / str(number)))
    return found


def test_only_what_is_small_and_on_top_is_folded(tmp_path: Path, store: Store) -> None:
    layers, folds = small(tmp_path / "layers", 2 * FEWEST + 2), Folds(store)
    for number, layer in enumerate(reversed(layers)):
        folds.add(layer, LARGEST + 1 if number == 1 else LARGEST)
    folds.fold(layers[-FEWEST - 1 :])  # but for the lowest two only nine
    assert folds.over(layers) == layers
    folds.fold(layers[-FEWEST - 2 :])
    over = folds.over(layers)
    assert [*over[:FEWEST], *over[-2:]] == [*layers[:FEWEST], *layers[-2:]]
    assert len(over) == FEWEST + 3
    assert sorted(os.listdir(over[FEWEST])) == sorted(f"f{number}" for number in range(2, FEWEST + 2))
    folds.fold(over)
    assert len(folds.over(layers)) == 4
    assert folds.over(layers[1:]) == [*layers[1:FEWEST], *over[FEWEST:]]  # a fold serves over its own layers alone
    folds.close()
    assert folds.over(layers) == layers


def test_what_cannot_be_folded_is_not_tried_again(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, folds, tried = small(tmp_path / "layers", FEWEST), Folds(store), list[str]()

    def refuse(*_: object) -> None:
        tried.append("once")
        raise Unfoldable("a hard link")

    monkeypatch.setattr("builder.filesystem.fold.fold_layers", refuse)
    for layer in layers:
        folds.add(layer, 1)
    for _ in range(3):
        folds.fold(layers)
        assert folds.over(layers) == layers
    assert tried == ["once"]
    folds.close()
