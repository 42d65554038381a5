"""The record of one build: its events are listened to while it runs, what became of its steps is written at its end.

A record is a convenience: that it, or a reason in it, cannot be had fails no build.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from builder import __version__
from builder.api.inputs import is_url
from builder.api.options import BuildOptions, BuildResult
from builder.api.spans import SpanLog
from builder.context.source import LocalContext, parse_context
from builder.dockerfile.stage_graph import StageGraph
from builder.errors import BuilderError, ContextError, Interrupted
from builder.export.output import image_names
from builder.plan.steps import Plan
from builder.progress import Event, Message, Reason, Reporter, StepOutput, Warned
from builder.solver.keys import KEYS
from builder.solver.record import NotedAs, built_images, built_steps
from builder.solver.solve import Solver
from builder.solver.trace import Trace
from builder.store.builds import BASES, CACHED, DONE, FAILED, INTERRUPTED, STOPPED, Build, BuiltImage, BuiltStep
from builder.store.records import storable
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.solver.explain_live import LiveExplainer
    from builder.solver.secrets import Guard

PORTABLE = (
    "step", "kind", "name", "stage", "instruction", "platform", "line", "needs", "reference", "digest", "sources",
    "key", "layers", "variables", "arguments",
)  # fmt: skip
"""The fields of a step that it is compared by, as they are; not what is of one build only."""


def project_of(options: BuildOptions) -> str:
    """What builds of the same thing have in common: the Dockerfile and the context, wherever the command was given and
    with whichever credentials. Of what came on standard input only the image's names tell one from another."""
    local = _is_local(options.context)
    context = os.path.abspath(options.context) if local else _shown(options.context)
    dockerfile = options.dockerfile
    if is_url(dockerfile):
        dockerfile = _shown(dockerfile)
    elif dockerfile not in ("", "-") and local:
        here = os.path.abspath(dockerfile)
        dockerfile = here if os.path.exists(here) else os.path.join(context, dockerfile)
    parts = [dockerfile or "Dockerfile", context]
    if "-" in (options.context, options.dockerfile):
        parts += sorted(image_names(options.outputs, options.tags) or options.tags)
    return storable("|".join(parts))


def _is_local(context: str) -> bool:
    try:
        return isinstance(parse_context(context), LocalContext)
    except ContextError:  # the build says so; this is about what was meant
        return "://" not in context


def _shown(context: str) -> str:
    """A context, or a Dockerfile, as people may see it: without the credentials of a URL."""
    if "://" not in context or _is_local(context):
        return context
    from builder.context.http import redacted

    return redacted(context)


@contextmanager
def recording(store: Store, options: BuildOptions, report: Reporter) -> Iterator[Recording]:
    """Record the build that the block does, also one that fails or is interrupted."""
    record = Recording(store, options, report)
    outcome, error = DONE, ""
    try:
        yield record
    except (KeyboardInterrupt, Interrupted):
        outcome, error = INTERRUPTED, "interrupted"
        raise
    except BaseException as problem:
        outcome, error = FAILED, str(problem)
        raise
    finally:
        record.finish(outcome, error)


class Recording:
    """Listens to a build: a reporter that passes everything on. `text` is to be what the Dockerfile says, `guard` what
    knows the build's secrets, as soon as it is there: they are masked in what is for people, and in the record.
    `image_ids` are those of what was made, one for each image of the plan."""

    def __init__(self, store: Store, options: BuildOptions, report: Reporter) -> None:
        self._store = store
        self._options = options
        self._report = report
        self._recorder = store.builds.begin()
        self._warnings: list[Warned] = []
        self._spans = SpanLog()
        self.text = b""
        self.guard: Guard | None = None
        self._plan: Plan | None = None
        self._solver: Solver | None = None
        self._digest_of: NotedAs | None = None
        self._explainer: LiveExplainer | None = None
        self.project = project_of(options)
        self.result = BuildResult()
        self.image_ids: tuple[str, ...] = ()

    @property
    def build(self) -> str:
        """The build's name."""
        return self._recorder.build

    def __call__(self, event: Event) -> None:
        if self.guard is not None:
            event = self.guard.mask_event(event)
        if isinstance(event, StepOutput):
            self._recorder.log(event.step, event.data)
        elif isinstance(event, Warned):
            self._warnings.append(event)
        else:
            self._spans(event)
        self._report(event)

    def watch(self, plan: Plan, solver: Solver, digest_of: NotedAs) -> None:
        """Record what becomes of the plan's steps, and say of each that is not found why that is."""
        self._plan, self._solver, self._digest_of = plan, solver, digest_of
        solver.explain = self._explain

    def _explain(self, trace: Trace, recipe: bytes) -> Reason | None:
        from builder.solver.explain_live import LiveExplainer  # a rebuild that finds everything does without

        assert self._plan is not None
        assert self._solver is not None
        assert self._digest_of is not None
        if self._explainer is None:
            self._explainer = LiveExplainer(
                self._solver,
                self._plan,
                self._store,
                self._solver.external,
                self.project,
                self._digest_of,
                self._options.no_cache,
            )
        try:
            return self._explainer(trace, recipe)
        except (BuilderError, OSError, LookupError, TypeError, ValueError):
            # The record of an earlier build does not hold what it should.
            return None

    def portable_steps(self) -> list[BuiltStep]:
        """The steps for a machine that has not this store: what a miss is compared with. They are the same for a build
        that found everything, so that nothing has to be written anew."""
        return [
            BuiltStep(
                **{name: getattr(step, name) for name in PORTABLE},
                outcome=CACHED if step.key else step.outcome,
                content=step.content or self._content(step.key),
                parts={name: self._content(key) or key for name, key in step.parts.items()},
            )
            for step in self._steps()
        ]

    def _content(self, key: str) -> str:
        record = self._store.database.recipe(key) if key else None
        return record.content if record is not None else ""

    def _steps(self) -> tuple[BuiltStep, ...]:
        if self._plan is None or self._solver is None or self._digest_of is None:
            return ()
        solver = self._solver
        return built_steps(self._plan, solver.solved, solver.roots, self._digest_of, self._recorder.log_sizes)

    def _images(self) -> tuple[BuiltImage, ...]:
        if self._plan is None or self._solver is None or not self.image_ids:
            return ()
        return built_images(self._plan, self._solver.roots, self.image_ids)

    def finish(self, outcome: str, error: str) -> None:
        """Write the record."""
        recorder, options, result = self._recorder, self._options, self.result
        steps = self._steps()
        if outcome == INTERRUPTED:  # whatever a step was ended with, that is why
            steps = tuple(
                msgspec.structs.replace(step, outcome=STOPPED) if step.outcome == FAILED else step for step in steps
            )
        build = Build(
            build=recorder.build,
            started=recorder.started,
            seconds=time.time() - recorder.started,
            outcome=outcome,
            error=error,
            project=self.project,
            context=_shown(options.context),
            dockerfile=_shown(options.dockerfile),
            names=image_names(options.outputs, options.tags) or options.tags,
            target=options.target,
            platforms=tuple(map(str, options.platforms)),
            image_id=result.image_id,
            digest=result.digest,
            version=__version__,
            keys=KEYS,
            warnings=tuple(self._warnings),
            steps=steps,
            spans=self._spans.spans(),
            text=self.text.decode("utf-8", "replace"),
            stages=self._plan.stages if self._plan is not None else StageGraph(),
            images=self._images(),
        )
        if self.guard is not None:
            build = self.guard.mask_record(build)
        steps = tuple(step for step in build.steps if step.kind not in BASES)
        self.result = msgspec.structs.replace(result, build=build.build, steps=steps, warnings=build.warnings)
        if any(step.outcome != CACHED and step.seconds for step in build.steps):
            self._tell_critical(build)
        try:
            if outcome != DONE:
                self._keep_failed()
            recorder.finish(build)
            self._store.builds.trim(logs=bool(recorder.log_sizes))
        except BuilderError as problem:
            self._report(Warned(f"the build is not recorded: {problem}"))
        if options.report or options.trace:
            self._write_files(build)

    def _tell_critical(self, build: Build) -> None:
        from builder.api.critical import critical_path, in_words

        text = in_words(critical_path(build.steps))
        if text:
            self._report(Message(text))

    def _write_files(self, build: Build) -> None:
        """Write what was asked for of the record. That it cannot be written does not hide why a build failed."""
        try:
            if self._options.trace:
                from builder.api.trace import trace_of
                from builder.export.destination import destination

                with destination(self._options.trace) as file:
                    file.write(trace_of(build))
            if self._options.report:
                from builder.api.report import write_report

                write_report(self._store, build, self._options.report)
        except BuilderError as problem:
            if build.outcome == DONE:
                raise
            self._report(Warned(str(problem)))

    def _keep_failed(self) -> None:
        """Keep the recipes of steps without a result: the next build compares with them."""
        from builder.solver.keys import key_of_encoded
        from builder.store.records import RecipeRecord

        solved = self._solver.solved.values() if self._solver is not None else ()
        for step in solved:
            if step.error and step.trace.recipe is not None:
                recipe = step.trace.recipe
                self._store.database.add_recipe(RecipeRecord(key_of_encoded(recipe), recipe))
