"""The workloads, and what is aimed at with each: a share of the fastest peer's time."""

from __future__ import annotations

from enum import Enum

import msgspec

from tests.benchmarks import recipes
from tests.benchmarks.recipes import RecipeKind


class State(Enum):
    """What a builder's store holds when the clock starts. Pages of files are in memory in every case."""

    EMPTY = "nothing"
    BASE = "the base image alone, unpacked"
    EDITED = "the base image, and builds of the same recipe with other input for each step"
    BUILT = "the same build, of which one input was changed then if the recipe changes"


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `output` is 'store' (nothing leaves the builder's own), 'archive' (its usual kind of archive), or an
    archive whose layers have this compression; or what is timed is a push, 'push', or one of what was pushed before,
    'push again'."""

    key: str
    title: str
    recipe: RecipeKind
    output: str
    state: State
    target: float
    squash: bool = False

    @property
    def needs_debian(self) -> bool:
        return isinstance(self.recipe, type) and issubclass(self.recipe, recipes.OnDebian)

    @property
    def pushes(self) -> bool:
        return self.output.startswith("push")


def _row(
    key: str, title: str, recipe: RecipeKind, output: str, state: State, target: float, *, squash: bool = False
) -> Workload:
    return Workload(key=key, title=title, recipe=recipe, output=output, state=state, target=target, squash=squash)


WORKLOADS = (
    _row("W1a", "no-op rebuild of 12 steps", recipes.TwelveSteps, "store", State.BUILT, 1.0),
    _row("W1b", "the same, to an archive", recipes.TwelveSteps, "archive", State.BUILT, 1.0),
    _row("W2a", "COPY of 30,000 files", recipes.ManyFiles, "store", State.EMPTY, 0.2),
    _row("W2b", "the same, to an archive", recipes.ManyFiles, "archive", State.EMPTY, 0.2),
    _row("W3a", "one of 30,000 files changed", recipes.ManyFiles, "store", State.BUILT, 0.15),
    _row("W3b", "the same, to an archive", recipes.ManyFiles, "archive", State.BUILT, 0.2),
    _row("W4a", "COPY of 1 GiB, to an archive with gzip", recipes.BigFile, "gzip", State.EMPTY, 0.25),
    _row("W4b", "the same with zstd", recipes.BigFile, "zstd", State.EMPTY, 0.4),
    _row("W4c", "the same uncompressed", recipes.BigFile, "uncompressed", State.EMPTY, 0.6),
    _row("W5", "40 trivial RUN steps", recipes.TrivialCommands, "store", State.BASE, 0.15),
    _row("W6", "6 stages of work for a processor", recipes.BusyStages, "store", State.BASE, 1.0),
    _row("W7a", "RUN and COPY on Debian, to an archive", recipes.Application, "archive", State.EDITED, 0.5),
    _row("W7b", "the same, the base is pulled", recipes.Application, "archive", State.EMPTY, 0.5),
    _row("W8", "chmod and rm of 20,000 files", recipes.ChangedTree, "archive", State.BUILT, 0.6),
    _row("W9", "1 % of 100,000 files, others ignored", recipes.Ignored, "archive", State.EMPTY, 0.5),
    _row("W10a", "push of W7a's image", recipes.Application, "push", State.EDITED, 0.6),
    _row("W10b", "push of what is there", recipes.Application, "push again", State.EDITED, 0.6),
    _row("W11", "squash 8,000 files of which half are gone", recipes.Squashed, "archive", State.BASE, 0.4, squash=True),
    _row("W12a", "metadata alone, on Debian", recipes.Metadata, "store", State.EDITED, 1.0),
    _row("W12b", "the same, to an archive", recipes.Metadata, "archive", State.EDITED, 0.5),
    _row("W13", "two builds at once on Debian", recipes.Pair, "store", State.EDITED, 0.8),
)


def choose(names: str) -> list[Workload]:
    """Those with these keys, separated by commas: `W4` means all of W4. Raises ValueError for one that is none."""
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if not any(_is(workload, name) for workload in WORKLOADS):
            raise ValueError(f"{name} is no workload: {', '.join(workload.key for workload in WORKLOADS)}")
    return [workload for workload in WORKLOADS if any(_is(workload, name) for name in wanted)]


def _is(workload: Workload, name: str) -> bool:
    return name in (workload.key, workload.key.rstrip("abc"))
