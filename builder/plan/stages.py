"""Which stage a name means, what a stage is based on, and which stages a target needs.

The rules are BuildKit's (`dockerfile2llb/convert.go`), with their surprises: FROM compares names as they are written
with the lower-cased names of the stages before it; COPY --from ignores case and sees every stage; RUN
--mount=from= knows no numbers; a named context hides a stage or an image of its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from builder.dockerfile.instructions import Copy, Run, Stage, StageInstruction
from builder.errors import PlanError
from builder.oci import reference
from builder.oci.spec import Platform
from builder.plan.locate import Locator

SCRATCH = "scratch"
_NUMBER = r"[+-]?[0-9]{1,18}"


class StageEntry:
    """A stage while a plan is made. `name` is in lower case, as BuildKit's `parseFrom` makes it; `base` is the stage it
    stands on, `context` the named context that replaces it.

    `implicit` marks an image that only COPY --from or a mount names: a stage without instructions. `needs` are the
    stages that its instructions name, `named_by` the first such instruction for each.
    """

    def __init__(self, stage: Stage | None, name: str, base_name: str, platform: Platform | None, index: int) -> None:
        self.stage = stage
        self.name = name
        self.base_name = base_name
        self.platform = platform
        self.index = index
        self.base: StageEntry | None = None
        self.context: str | None = None
        self.implicit = stage is None
        self.instructions: list[tuple[StageInstruction, bool]] = (
            [(i, False) for i in stage.instructions] if stage else []
        )
        self.needs: list[StageEntry] = []
        self.named_by: dict[StageEntry, StageInstruction] = {}
        self.triggers_added = False

    @property
    def label(self) -> str:
        return self.name or f"stage-{self.index}"


class StageTable:
    """All stages of a Dockerfile and the images named beside them. `meant` gives the stage that another name means, a
    named context's."""

    def __init__(self, meant: Callable[[str], StageEntry | None]) -> None:
        self._meant = meant
        self.entries: list[StageEntry] = []
        self._by_name: dict[str, StageEntry] = {}
        self._images: dict[str, StageEntry] = {}

    def add(self, entry: StageEntry, *, replaced: bool = False) -> None:
        """Append a stage; its base is found among those before it, unless a context replaces it."""
        if not replaced:
            entry.base = self._by_name.get(entry.base_name)
        self.entries.append(entry)
        if entry.name:
            self._by_name[entry.name] = entry

    def named(self, name: str) -> StageEntry | None:
        return self._by_name.get(name.lower())

    def source(self, name: str, *, numbers: bool) -> StageEntry:
        """What COPY --from=NAME or a mount's from=NAME means: a stage, with `numbers` also by its index, else an
        image, which becomes an implicit stage. Raises PlanError for an index or a name that no stage has."""
        if numbers and re.fullmatch(_NUMBER, name):
            index = int(name)
            stages = [entry for entry in self.entries if not entry.implicit]
            if not 0 <= index < len(stages):
                raise PlanError(
                    f"there is no stage {index}",
                    remedy=f"stages count from 0; this Dockerfile has {len(stages)} of them",
                )
            return stages[index]
        found = self.named(name) or self._images.get(name) or self._meant(name)
        if found is None:
            found = StageEntry(None, "", name, None, len(self.entries))
            self._images[name] = found
            self.add(found)
        return found

    def names(self) -> list[str]:
        return [entry.name for entry in self.entries if entry.name]

    def target(self, name: str) -> StageEntry:
        """The stage to build: the last one, or the one called `name` in any case. Raises PlanError."""
        if not name:
            return [entry for entry in self.entries if not entry.implicit][-1]
        found = self.named(name)
        if found is None:
            raise PlanError(f"target stage {name!r} was not found", remedy=did_you_mean(name, self.names()))
        return found


def link(entry: StageEntry, instructions: Iterable[StageInstruction], table: StageTable, locate: Locator) -> None:
    """Note in `entry.needs` the stages that its instructions copy or mount from."""
    for instruction in instructions:
        if isinstance(instruction, Copy) and instruction.from_:
            with locate(instruction):
                _need(entry, table.source(instruction.from_, numbers=True), instruction)
        elif isinstance(instruction, Run) and instruction.mounts:
            from builder.dockerfile.mounts import mount_source

            for word in instruction.mounts:
                with locate(instruction):
                    source = mount_source(word.source)
                    if source:
                        _need(entry, table.source(source, numbers=False), instruction)


def _need(entry: StageEntry, source: StageEntry, instruction: StageInstruction) -> None:
    entry.needs.append(source)
    entry.named_by.setdefault(source, instruction)


def check_cycles(table: StageTable, locate: Locator) -> None:
    """Raises PlanError naming a stage that needs itself, directly or through others."""
    done: set[int] = set()

    def visit(entry: StageEntry, path: tuple[StageEntry, ...]) -> None:
        if id(entry) in done:
            return
        if entry in path:
            names = " → ".join(step.label for step in (*path[path.index(entry) :], entry))
            error = PlanError(
                f"stage {entry.label!r} needs itself: {names}", remedy="copy from an earlier stage or another image"
            )
            last = path[-1]
            closing = last.named_by.get(entry) or (last.stage.from_ if last.stage else None)
            if closing is None:
                raise error
            with locate(closing):
                raise error
        for needed in [*([entry.base] if entry.base else []), *entry.needs]:
            visit(needed, (*path, entry))
        done.add(id(entry))

    for entry in table.entries:
        visit(entry, ())


def reachable(target: StageEntry) -> set[StageEntry]:
    """The target and all that it needs."""
    found: set[StageEntry] = set()
    waiting = [target]
    while waiting:
        entry = waiting.pop()
        if entry not in found:
            found.add(entry)
            waiting.extend([*([entry.base] if entry.base else []), *entry.needs])
    return found


def context_key(name: str) -> str:
    """The form under which a named context is looked up: familiar, without `:latest` (buildx does the same). What is
    not in lower case, and so no image's name, stays as it is."""
    return reference.parse(name).familiar.removesuffix(":latest") if name == name.lower() else name


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """A remedy that names the closest candidate, or lists them."""
    from difflib import get_close_matches

    known = list(dict.fromkeys(candidates))
    close = get_close_matches(word.lower(), [name.lower() for name in known], 1, 0.6)
    if close:
        return f"did you mean {next(name for name in known if name.lower() == close[0])}?"
    return f"known names: {', '.join(known)}" if known else None
