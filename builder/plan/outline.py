"""What a target asks of whoever builds it: build arguments, secrets, SSH agents and caches; and a list of all targets.

The rules are those of BuildKit's `dockerfile2llb/outline.go`, and the caches, which it leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from builder.dockerfile.instructions import Dockerfile, Range, Stage
from builder.dockerfile.words import expand
from builder.oci.spec import ImageConfig
from builder.plan.findings import Checks
from builder.plan.locate import Locator
from builder.plan.nodes import Nodes
from builder.plan.options import PlanOptions
from builder.plan.planner import Planner
from builder.plan.stage_reader import StageReader
from builder.plan.stages import StageEntry
from builder.plan.steps import CacheMount, ImageKey, Missing, RunNode, SecretMount, SshMount


class OutlineArgument(msgspec.Struct, frozen=True):
    """A build argument with the value that it has now ('' for none)."""

    name: str
    value: str
    description: str
    range: Range


class OutlineMount(msgspec.Struct, frozen=True):
    """A secret, an SSH agent or a cache. `required` where a step fails without it."""

    name: str
    required: bool
    range: Range


Entry = TypeVar("Entry", OutlineArgument, OutlineMount)


class Outline(msgspec.Struct, frozen=True):
    """What one target and the stages that it needs ask for, in the order of the Dockerfile's lines."""

    name: str
    description: str
    arguments: tuple[OutlineArgument, ...]
    secrets: tuple[OutlineMount, ...]
    agents: tuple[OutlineMount, ...]
    caches: tuple[OutlineMount, ...]


class TargetLine(msgspec.Struct, frozen=True):
    """A stage that can be built: `base` and `platform` as written."""

    name: str
    description: str
    default: bool
    base: str
    platform: str
    range: Range


def list_targets(dockerfile: Dockerfile) -> tuple[TargetLine, ...]:
    """All stages; the last one is the default."""
    last = len(dockerfile.stages) - 1
    return tuple(
        TargetLine(
            name=stage.from_.name.lower(),
            description=_stage_description(stage),
            default=position == last,
            base=stage.from_.image.source,
            platform=stage.from_.platform.source if stage.from_.platform else "",
            range=stage.from_.range,
        )
        for position, stage in enumerate(dockerfile.stages)
    )


def outline(
    dockerfile: Dockerfile, options: PlanOptions, images: Mapping[ImageKey, ImageConfig], locate: Locator
) -> Outline | Missing:
    """The outline of the target, or the images that have to be resolved for it. Raises as `planner.plan`."""
    platform = options.platforms[0] if options.platforms else options.host
    reader = StageReader(dockerfile, options, locate, platform, set(), Checks())
    planner = Planner(reader, images, Nodes(), implicit_platform=not options.platforms)
    missing = planner.run()
    if isinstance(missing, Missing):
        return missing
    target = reader.table.target(options.target)
    runs = [node for node in planner.nodes.labelled() if isinstance(node, RunNode)]
    mounts = [(mount, node.range) for node in runs if node.range for mount in node.mounts]
    return Outline(
        name=target.stage.from_.name.lower() if target.stage else "",
        description=_stage_description(target.stage) if target.stage else "",
        arguments=_in_order(_arguments(planner, target)),
        secrets=_mounts((m.secret, m.required, where) for m, where in mounts if isinstance(m, SecretMount)),
        agents=_mounts((m.agent, m.required, where) for m, where in mounts if isinstance(m, SshMount)),
        caches=_mounts((m.cache.partition("/")[2], False, where) for m, where in mounts if isinstance(m, CacheMount)),
    )


def _stage_description(stage: Stage) -> str:
    return description(stage.from_.comments, stage.from_.name.lower())


def description(comments: Iterable[str], name: str) -> str:
    """What a comment `name what it is` above an ARG or FROM says; '' where there is none."""
    for comment in comments if name else ():
        if comment.startswith(f"{name} "):
            return comment[len(name) + 1 :]
    return ""


def _mounts(found: Iterable[tuple[str, bool, Range]]) -> tuple[OutlineMount, ...]:
    """One entry a name, at its first use; required if any use requires it."""
    mounts: dict[str, OutlineMount] = {}
    for name, required, where in found:
        earlier = mounts.setdefault(name, OutlineMount(name, required, where))
        mounts[name] = OutlineMount(name, earlier.required or required, earlier.range)
    return _in_order(mounts.values())


def _arguments(planner: Planner, target: StageEntry) -> Iterator[OutlineArgument]:
    """The arguments of the target, then those that only the stages below it and beside it have."""
    globals_ = _Globals(planner.reader)
    seen: set[str] = set()
    visited: set[StageEntry] = set()
    waiting = [target]
    while waiting:
        entry = waiting.pop(0)
        if entry in visited:
            continue
        visited.add(entry)
        state = planner.states.get(entry)
        own = state.arguments if state is not None else {}
        from_names = globals_.used_by(entry.stage) if entry.stage else ()
        for name in globals_.with_dependencies([*from_names, *own]):
            if name in seen:
                continue
            declared = own.get(name)
            if declared is not None:
                seen.add(name)
                instruction = declared.instruction
                yield OutlineArgument(name, declared.value, description(instruction.comments, name), instruction.range)
            elif name in globals_.arguments:
                seen.add(name)
                yield globals_.arguments[name]
        waiting = [*([entry.base] if entry.base else []), *entry.needs, *waiting]


class _Globals:
    """The global arguments, and which of them the default of each uses."""

    def __init__(self, reader: StageReader) -> None:
        self.arguments: dict[str, OutlineArgument] = {}
        self._values = reader.global_args
        self._uses: dict[str, set[str]] = {}
        declared = {pair.key.source for argument in reader.dockerfile.global_args for pair in argument.pairs}
        known = {name: value for name, value in self._values.items() if name not in declared}
        for argument in reader.dockerfile.global_args:
            for pair in argument.pairs:
                name = pair.key.source
                uses = set()
                if pair.given and name not in reader.options.build_args:
                    uses = set(expand(pair.value, known).used)
                if name in uses:  # ARG A=$A-more: it uses what the earlier one used
                    uses = (uses - {name}) | self._uses.get(name, set())
                self._uses[name] = uses
                if name in self._values:
                    known[name] = self._values[name]
                text = description(argument.comments, name)
                self.arguments[name] = OutlineArgument(name, self._values.get(name, ""), text, argument.range)

    def used_by(self, stage: Stage) -> list[str]:
        """The arguments that a FROM names."""
        words = [stage.from_.image, *([stage.from_.platform] if stage.from_.platform else [])]
        return [name for word in words for name in expand(word, self._values).used]

    def with_dependencies(self, names: Iterable[str]) -> list[str]:
        """The names, and those that their defaults are made from."""
        found: dict[str, None] = {}
        waiting = list(names)
        while waiting:
            name = waiting.pop(0)
            if name not in found:
                found[name] = None
                waiting += sorted(self._uses.get(name, ()))
        return list(found)


def _in_order(found: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(found, key=lambda item: item.range.start))
