"""One workload with all builders: a rehearsal, then timed rounds in which they take turns.

In the rehearsal the memory is watched, and what was made is looked at thoroughly; neither is timed. In the rounds every
second one goes through the builders backwards, so that none always follows the same neighbour. The clock starts after
the file systems were flushed, with the files' pages in memory.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.benchmarks.bases import Bases
from tests.benchmarks.builders import Builder, Request, Unavailable
from tests.benchmarks.expected import check
from tests.benchmarks.measure import Command, Failed, Usage, calibrate, measure, run
from tests.benchmarks.recipes import Recipe
from tests.benchmarks.workloads import State, Workload


class Cell(msgspec.Struct, frozen=True):
    """What one builder needed for one workload: `seconds` of each round, `peak` bytes of memory. With a `note` it could
    not be measured, and why."""

    seconds: list[float] = []
    peak: int = 0
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Row(msgspec.Struct, frozen=True):
    """One workload: a cell for each builder by its name. `calibration` are seconds of the fixed work before each
    round, by which one sees how quiet the machine was."""

    key: str
    title: str
    target: float
    cells: dict[str, Cell]
    calibration: list[float]


class Contest:
    """Measures workloads. Recipes live below `work` and are made once, as several workloads share one."""

    def __init__(self, work: Path, builders: Sequence[Builder], bases: Bases, scale: float, runs: int) -> None:
        self._work = work
        self._builders = builders
        self._bases = bases
        self._scale = scale
        self._runs = runs
        self._recipes: dict[str, Recipe] = {}

    def measure(self, workload: Workload) -> Row:
        """The row of a workload."""
        recipe = self._recipe(workload)
        attempts = {
            builder.name: _Attempt(self._work, self._bases, builder, workload, recipe) for builder in self._builders
        }
        calibration = []
        for number in range(1 + self._runs):
            calibration.append(calibrate())
            for builder in self._builders if number % 2 else reversed(self._builders):
                attempts[builder.name].go(rehearsal=number == 0)
        cells = {name: attempt.cell() for name, attempt in attempts.items()}
        return Row(workload.key, workload.title, workload.target, cells, calibration)

    def _recipe(self, workload: Workload) -> Recipe:
        name = workload.recipe.__name__.lower()
        if name not in self._recipes:
            directory = self._work / "contexts" / name
            directory.mkdir(parents=True)
            self._recipes[name] = workload.recipe(directory, self._bases, self._scale)
        return self._recipes[name]


class _Attempt:
    """One builder at one workload."""

    def __init__(self, work: Path, bases: Bases, builder: Builder, workload: Workload, recipe: Recipe) -> None:
        self._work = work
        self._bases = bases
        self._builder = builder
        self._workload = workload
        self._recipe = recipe
        self._usages: list[Usage] = []
        self._peak = 0
        self._note = ""

    def go(self, *, rehearsal: bool) -> None:
        """One round, unless an earlier one has failed."""
        if self._note:
            return
        try:
            usage = self._round(rehearsal)
        except Unavailable as reason:
            self._note = str(reason)
        except (Failed, OSError, KeyError, tarfile.TarError, subprocess.SubprocessError) as failure:
            self._note = f"failed: {failure}".replace(str(self._work), "")
        else:
            self._peak = max(self._peak, usage.peak)
            if not rehearsal:
                self._usages.append(usage)

    def cell(self) -> Cell:
        seconds = [usage.seconds for usage in self._usages]
        return Cell(note=self._note) if self._note else Cell(seconds, self._peak)

    def _round(self, rehearsal: bool) -> Usage:
        self._plans()  # what cannot be done is said before anything is prepared for it
        self._prepare(first=rehearsal)
        os.sync()
        usage = measure(self._plans(), self._builder.environ, watch=rehearsal, daemons=self._builder.daemons())
        self._check(thorough=rehearsal)
        return usage

    def _plans(self) -> list[list[Command]]:
        """What is timed: commands one after the other, of each Dockerfile side by side."""
        make = self._builder.push if self._workload.pushes else self._builder.build
        return [make(self._request(dockerfile)) for dockerfile in self._recipe.dockerfiles]

    def _request(self, dockerfile: str, *, output: str = "") -> Request:
        workload, recipe = self._workload, self._recipe
        name = dockerfile.partition(".")[0].lower()
        return Request(
            context=recipe.directory,
            dockerfile=dockerfile,
            tag=self._bases.pushed if workload.pushes else f"localhost/{recipe.directory.name}/{name}:1",
            archive=self._work / f"{self._builder.name}-{name}.tar",
            output=output or ("store" if workload.pushes else workload.output),
            squash=workload.squash,
            arguments=dict(recipe.arguments),
        )

    def _prepare(self, *, first: bool) -> None:
        """Have the store as the workload says."""
        builder, workload, recipe = self._builder, self._workload, self._recipe
        if workload.state is State.EMPTY:
            builder.wipe()
        elif workload.state is State.BASE or (first and builder.base != recipe.base):
            builder.wipe()
            self._load_base()
        if workload.state is State.BUILT and first:
            self._run(builder.build(self._request(recipe.dockerfiles[0])))
        if workload.state in (State.EDITED, State.BUILT):
            recipe.edit()
        if workload.pushes:
            self._bases.forget_pushed()
            self._run(builder.build(self._request(recipe.dockerfiles[0])))
            if workload.output == "push again":
                self._run(builder.push(self._request(recipe.dockerfiles[0])))

    def _load_base(self) -> None:
        """Have the base image in the store and unpacked, by a build that runs a command on it."""
        recipe, directory = self._recipe, self._work / "base-context"
        if recipe.base:
            directory.mkdir(exist_ok=True)
            (directory / "Dockerfile").write_text(f"FROM {recipe.base}\nRUN echo\n")
            archive = self._work / "base.tar"
            request = Request(context=directory, dockerfile="Dockerfile", tag="localhost/base:1", archive=archive)
            self._run(self._builder.build(request))
        self._builder.base = recipe.base

    def _run(self, commands: Sequence[Command]) -> None:
        for command in commands:
            run(command, self._builder.environ)

    def _check(self, *, thorough: bool) -> None:
        """Raises Failed unless what was made is right. What stayed in a builder's store is taken out once."""
        workload, recipe = self._workload, self._recipe
        if workload.pushes:
            self._bases.check_pushed(recipe.expected)
            return
        for dockerfile in recipe.dockerfiles:
            request = self._request(dockerfile)
            if workload.output == "store":
                if not thorough:
                    continue
                request = self._request(dockerfile, output="archive")
                self._run(self._builder.build(request))
            compression = workload.output if workload.output in ("gzip", "zstd", "uncompressed") else ""
            check(request.archive, recipe.expected, compression=compression, thorough=thorough)
            request.archive.unlink()
