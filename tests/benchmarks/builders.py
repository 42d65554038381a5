"""What a builder is asked to do, the contract that each one fulfils, and `builder` itself."""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tests.benchmarks.machine import remove_tree
from tests.benchmarks.measure import Command
from tests.support.builds import PROJECT


class Unavailable(Exception):
    """A builder is not installed, or has nothing for a workload; the text says what is missing."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One build. `output` is 'store', 'archive', 'gzip', 'zstd' or 'uncompressed', as in a workload; an archive is
    written to `archive`."""

    context: Path
    dockerfile: str
    tag: str
    archive: Path
    output: str = "store"
    squash: bool = False
    arguments: Mapping[str, str] = {}


class Builder(ABC):
    """A builder with a store of its own below `work`. `base` is the image that is known to be in the store (empty for
    none), None as long as there is no store.

    Its constructor raises Unavailable where it is not installed; `build` and `push` where it cannot do what is asked.
    """

    name = ""

    def __init__(self, work: Path) -> None:
        self.root = work / f"{self.name}-root"
        self.base: str | None = None
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "BUILD"))}
        own = {"HOME": str(work), "TMPDIR": str(work), "XDG_RUNTIME_DIR": str(work), "NO_PROXY": "127.0.0.1"}
        self.environ: Mapping[str, str] = {**kept, **own}

    @property
    @abstractmethod
    def version(self) -> str:
        """The version, as the program tells it."""

    def daemons(self) -> list[int]:
        """The process ids of its daemons, whose memory is its own."""
        return []

    def stop(self) -> None:
        """End what runs: nothing does of a builder without a daemon."""
        return

    def wipe(self) -> None:
        """Have an empty store."""
        self.stop()
        remove_tree(self.root)
        self.root.mkdir()
        self.base = ""

    @abstractmethod
    def build(self, request: Request) -> list[Command]:
        """The commands for a build, one after the other."""

    @abstractmethod
    def push(self, request: Request) -> list[Command]:
        """The commands for a push of what was built by this request, to the registry that its tag names."""


class Ours(Builder):
    """This checkout, by the interpreter that runs the benchmarks."""

    name = "builder"

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        (work / "builder.toml").touch()
        self.environ = {**self.environ, "PYTHONPATH": str(PROJECT), "BUILDER_CONFIG": str(work / "builder.toml")}
        self.command = [sys.executable, "-m", "builder", "--root", str(self.root)]

    @property
    def version(self) -> str:
        return first_line([sys.executable, "-m", "builder", "--version"], self.environ)

    def build(self, request: Request) -> list[Command]:
        command = [*self.command, "build", "--progress", "plain", *common_options(request)]
        if request.output != "store":
            asked = "" if request.output == "archive" else f",compression={request.output}"
            command += ["--output", f"type=oci,dest={request.archive}{asked}"]
        return [[*command, str(request.context)]]

    def push(self, request: Request) -> list[Command]:
        return [[*self.command, "push", request.tag]]


def common_options(request: Request) -> list[str]:
    """The options that Docker, buildah and `builder` spell alike."""
    options = ["-t", request.tag, "-f", str(request.context / request.dockerfile)]
    for name, value in request.arguments.items():
        options += ["--build-arg", f"{name}={value}"]
    return [*options, "--squash"] if request.squash else options


def first_line(command: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    """The first line that a command writes."""
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    return next(iter((done.stdout or done.stderr).strip().splitlines()), "unknown")
