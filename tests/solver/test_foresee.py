"""The next step's root, made beside the layer of the one before: the same images, and nothing left over."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from builder.sandbox.command import Command
from builder.solver.commands import overlay_directories
from builder.solver.foresee import Foreseen, foresee
from tests.support.builds import Cli, busybox_context, needs_sandbox

CHAINS = {
    "plain": ("RUN echo 1 > /a\nRUN echo 2 >> /a\nRUN rm /a\nRUN test ! -e /a\n", 3),
    "nothing changes": ("RUN true\nRUN true # again\nRUN echo 1 > /a\n", 1),
    "the same layer twice": ("RUN touch -d @1 /a\nRUN touch -d @1 /b\nRUN rm /b && touch -d @1 /a\nRUN ls /a\n", 2),
    "directories": ("RUN mkdir /d\nWORKDIR /d/e\nRUN pwd > f\nWORKDIR /new\nRUN test -f /d/e/f && pwd > g\n", 0),
    "users": ("RUN echo 'u:x:7:7::/:/bin/sh' > /etc/passwd\nUSER u\nRUN id -u > /tmp/u\nRUN id -u > /tmp/v\n", 1),
    "the user's number changes": (
        "RUN echo 'u:x:7:7::/:/bin/sh' > /etc/passwd && chmod 666 /etc/passwd\nUSER u\n"
        "RUN echo 'u:x:8:8::/:/bin/sh' > /etc/passwd\nRUN id -u > /tmp/v\n", 0,
    ),
    "mounts": ("RUN echo 1 > /a\nRUN --mount=type=cache,target=/c echo 2 > /c/f\nRUN test ! -e /c/f\n", 1),
    "mount points": ("RUN --mount=type=tmpfs,target=/t true\nRUN test ! -e /t\nRUN mkdir /t\n", 1),
    "links to the layers below": ("RUN echo 1 > /a\nRUN ln /a /b\nRUN echo 2 > /b\nRUN cat /a > /c\n", 3),
    "the network": ("RUN echo 1 > /a\nRUN --network=none echo 2 > /b\nRUN echo 3 > /c\n", 0),
    "copies between": ("RUN echo 1 > /a\nCOPY Dockerfile /d\nRUN cat /a /d > /e\nRUN echo 3 > /c\n", 1),
    "owner of the root": (  # given when the next root's directory is there
        "RUN --mount=type=cache,target=/tmp until test -e /tmp/met; do sleep 0.02; done; chown 7:8 / && chmod 700 /\n"
        "RUN stat -c %u:%g:%a / > /a\nRUN echo 1 > /b\n", 1,
    ),
}  # fmt: skip


@needs_sandbox
@pytest.mark.parametrize("name", CHAINS)
def test_the_same_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    commands, expected = CHAINS[name]
    base = "RUN chmod 1777 /tmp\n"
    directory = busybox_context(tmp_path / "context", f"{base}COPY Dockerfile /first\n{commands}")
    (directory / "base/etc").mkdir()
    (directory / "base/etc/passwd").touch()
    served: list[bool] = []
    original = Foreseen.serves

    def serves(self: Foreseen, command: Command) -> bool:
        served.append(original(self, command))
        return served[-1]

    def meeting(
        foresee: Callable[..., Foreseen | None], environment: object, command: Command, *steps: object
    ) -> Foreseen | None:
        """Tells a command with a cache that the next root's directory is there."""
        foreseen = foresee(environment, command, *steps)
        for mount in command.mounts:
            if mount.target == "/tmp":
                Path(mount.source, "met").touch()
        return foreseen

    monkeypatch.setattr(Foreseen, "serves", serves)
    monkeypatch.setattr("builder.solver.foresee._PATIENCE", 20_000)
    monkeypatch.setattr("builder.solver.execute.foresee", partial(meeting, foresee))
    ahead = Cli(tmp_path / "ahead")
    ahead.build("-t", "x", directory)
    assert sum(served) == expected, served
    assert os.listdir(ahead.root / "tmp") == []
    monkeypatch.setattr("builder.solver.execute.foresee", partial(meeting, lambda *_: None))
    plain = Cli(tmp_path / "plain")
    plain.build("-t", "x", directory)
    assert {path: entry._replace(mtime=0) for path, entry in ahead.files("x").items()} == {
        path: entry._replace(mtime=0) for path, entry in plain.files("x").items()
    }


@needs_sandbox
def test_an_owner_that_changes_while_the_root_is_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next root's directory got the owner from before: as a command may do it just then."""
    directory = busybox_context(tmp_path / "context", "RUN echo 1 > /a\nRUN stat -c %u:%g / > /b\n")

    def meanwhile(scratch: str, lowers: Sequence[str]) -> tuple[str, str]:
        made = overlay_directories(scratch, lowers)
        os.chown(lowers[0], 7, 8)
        return made

    monkeypatch.setattr("builder.solver.foresee.overlay_directories", meanwhile)
    cli = Cli(tmp_path / "store")
    cli.build("-t", "x", directory)
    assert cli.files("x")["b"].content == b"7:8\n"


@needs_sandbox
@pytest.mark.parametrize(
    ("end", "arguments"),
    [
        ("RUN false\n", []),
        ("RUN echo 2 > /b\n", ["--isolation", "chroot"]),
        ("RUN --mount=type=secret,id=s,required id\n", []),
    ],
)
def test_nothing_is_left_over(tmp_path: Path, end: str, arguments: list[str]) -> None:
    directory = busybox_context(tmp_path / "context", f"RUN echo 1 > /a\n{end}")
    cli = Cli(tmp_path / "store")
    cli("build", *arguments, directory)
    assert os.listdir(cli.root / "tmp") == []


@needs_sandbox
def test_a_step_that_is_found_after_one_that_ran(tmp_path: Path) -> None:
    """Its root was made in vain, and the next one's is its own."""
    text = "ARG A\nRUN echo $A > /dev/null; touch -d @1 /a && touch -d @1 /\nRUN touch -d @1 /b\n"
    directory = busybox_context(tmp_path / "context", text)
    cli = Cli(tmp_path / "store")
    cli.build("--build-arg", "A=1", directory)
    (directory / "Dockerfile").write_text((directory / "Dockerfile").read_text() + "RUN ls / > /c\n")
    done = cli.build("--build-arg", "A=2", "-t", "x", directory)
    assert "CACHED" in done.err
    assert "c" in cli.files("x")
