"""What the stages of a Dockerfile are called, start from and name, before any of their instructions is planned."""

from __future__ import annotations

from builder.dockerfile.instructions import Dockerfile, From, Range
from builder.dockerfile.stage_graph import StageGraph
from builder.dockerfile.text import nearest
from builder.dockerfile.words import Expansion, Word, expand
from builder.errors import BuilderError, PlanError
from builder.oci import reference
from builder.oci.platform import parse_platform
from builder.oci.spec import Platform
from builder.plan.checks import check_default_arguments, check_from_arguments, check_platform_flag
from builder.plan.findings import Checks
from builder.plan.locate import Locator
from builder.plan.options import PlanOptions
from builder.plan.scope import global_scope, platform_arguments
from builder.plan.stage_graph import stage_graph
from builder.plan.stages import (
    SCRATCH,
    StageEntry,
    StageTable,
    check_cycles,
    context_key,
    did_you_mean,
    link,
    reachable,
)
from builder.plan.steps import FromContext, ImageKey

_NEVER_REPLACED = (SCRATCH, "context")


class StageReader:
    """The stages as they are for one platform. `used` collects the names of the build arguments that count, `checks`
    what build checks find. `global_args` are those before the first FROM."""

    def __init__(
        self,
        dockerfile: Dockerfile,
        options: PlanOptions,
        locate: Locator,
        platform: Platform,
        used: set[str],
        checks: Checks,
    ) -> None:
        self.dockerfile = dockerfile
        self.options = options
        self.locate = locate
        self.platform = platform
        self.used = used
        self.checks = checks
        self.table = StageTable(self._stage_meant)
        self.global_args: dict[str, str] = {}

    def read(self) -> StageEntry:
        """Read the stages and what each names; returns the target."""
        self._read_globals()
        self._read_stages()
        target = self.table.target(self.options.target)
        for entry in list(self.table.entries):
            if entry.context is None:
                link(entry, [instruction for instruction, _ in entry.instructions], self.table, self.locate)
        check_cycles(self.table, self.locate)
        return target

    def graph(self, target: StageEntry) -> StageGraph:
        """What was read of the stages, as a graph."""
        return stage_graph(self.table, target, reachable(target), self.named_base)

    def _read_globals(self) -> None:
        last = self.dockerfile.stages[-1].from_.name.lower()
        predefined = platform_arguments(self.options.host, self.platform, self.options.target or last)
        overridden = {name: self.options.build_args.get(name, value) for name, value in predefined.items()}
        check_default_arguments(self.checks, self.dockerfile, overridden)
        self.global_args = global_scope(self.dockerfile.global_args, predefined, self.options.build_args, self.used)

    def _read_stages(self) -> None:
        for index, stage in enumerate(self.dockerfile.stages):
            with self.locate(stage.from_):
                image = self._expand_from(stage.from_, stage.from_.image)
                base_name = image.text
                if not base_name:
                    raise PlanError(
                        f"the base name {stage.from_.image.source!r} is empty once it is expanded",
                        remedy="give the ARG a default before the first FROM, or pass --build-arg",
                    )
                platform = None
                if stage.from_.platform is not None:
                    platform = self._platform_flag(stage.from_, stage.from_.platform)
                entry = StageEntry(stage, stage.from_.name.lower(), base_name, platform, index)
                if entry.name:
                    _check_name(stage.from_.name)
                    entry.context = self.context_for(entry.name) or self.context_for(stage.from_.name)
                self.table.add(entry, replaced=entry.context is not None)
                if entry.base is None and base_name != SCRATCH:
                    reference.parse(base_name)
        for entry in self.table.entries:
            self._stand_on_context_stage(entry)

    def _expand_from(self, from_: From, word: Word) -> Expansion:
        expansion = expand(word, self.global_args)
        declared = [pair.key.source for argument in self.dockerfile.global_args for pair in argument.pairs]
        check_from_arguments(self.checks, from_, expansion.unmatched, self.global_args, declared)
        return expansion

    def _platform_flag(self, from_: From, word: Word) -> Platform:
        platform = self._expand_from(from_, word)
        check_platform_flag(self.checks, from_, platform, self.global_args["TARGETPLATFORM"])
        hints = [nearest(name, self.global_args) for name in platform.unmatched]
        remedy = f"did you mean {next(filter(None, hints))}?" if any(hints) else None
        if not platform.text:
            raise PlanError(f"the platform {word.source!r} is empty once it is expanded", remedy=remedy)
        try:
            return parse_platform(platform.text)
        except BuilderError as error:
            error.remedy = remedy or error.remedy
            raise

    def _stand_on_context_stage(self, entry: StageEntry) -> None:
        """Where a named context means another stage of this Dockerfile, that becomes the base, also a later one."""
        if entry.base is None and entry.stage is not None:
            with self.locate(entry.stage.from_):
                entry.base = self._stage_meant(entry.context or entry.base_name)

    def _stage_meant(self, name: str) -> StageEntry | None:
        """The stage of this Dockerfile that the named context `name` means, if it means one. Raises PlanError."""
        key = self.context_for(name)
        stage = self.options.contexts[key].stage if key else ""
        if not stage:
            return None
        found = self.table.named(stage)
        if found is None:
            raise PlanError(
                f"context {name!r} names the stage {stage!r}, which does not exist",
                remedy=did_you_mean(stage, self.table.names()),
            )
        return found

    def context_for(self, name: str) -> str | None:
        """The named context that replaces the stage or image `name`, if there is one: for two names never, as in
        BuildKit (`namedContextFunc`)."""
        if not self.options.contexts or name.lower() in _NEVER_REPLACED:
            return None
        key = context_key(name)
        return key if key in self.options.contexts else None

    def place(self, entry: StageEntry) -> Range | None:
        """The lines that name what a stage starts from."""
        if entry.stage is not None:
            return entry.stage.from_.range
        return next((other.named_by[entry].range for other in self.table.entries if entry in other.named_by), None)

    def base(self, entry: StageEntry) -> ImageKey | StageEntry | FromContext | None:
        """What a stage starts from: an image, another stage, a context's files, or nothing (None). Raises PlanError for
        an image that the build's policy denies."""
        base = self.named_base(entry)
        policy = self.options.policy
        if policy is None or not isinstance(base, ImageKey):
            return base
        with self.locate.at(self.place(entry)):
            if not base.layout:
                return ImageKey(policy.image(base.reference), base.platform)
            name = entry.context or self.context_for(entry.base_name) or ""
            policy.layout(name, self.options.contexts[name].digest)
            return base

    def named_base(self, entry: StageEntry) -> ImageKey | StageEntry | FromContext | None:
        """The same by the Dockerfile and the named contexts alone."""
        if entry.base is not None:
            return entry.base
        platform = entry.platform or self.platform
        name = entry.context
        if name is None:
            if entry.base_name == SCRATCH:
                return None
            with self.locate.at(self.place(entry)):
                name = self.context_for(entry.base_name)
                if name is None:
                    return ImageKey(str(reference.parse(entry.base_name)), platform)
        context = self.options.contexts[name]
        if context.reference == SCRATCH and not context.layout:
            return None
        if context.reference or context.layout:
            return ImageKey(context.reference, platform, context.layout)
        return FromContext(name)

    def image_below(self, entry: StageEntry) -> ImageKey | None:
        """The image that a stage stands on, also where other stages are between; None if there is none."""
        base = self.base(entry)
        while isinstance(base, StageEntry):
            base = self.base(base)
        return base if isinstance(base, ImageKey) else None


def _check_name(name: str) -> None:
    """A stage's name has to be one of an image, since a named context could replace it: as in BuildKit (`NamedContext`
    of its `dockerui`). Raises PlanError."""
    try:
        reference.parse(name.lower())
    except BuilderError:
        raise PlanError(
            f"invalid name for build stage: {name!r}",
            remedy="end it with a letter or a digit, and part words by one '.', '-' or '_'",
        ) from None
