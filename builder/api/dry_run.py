"""A build that is only planned: parsed, resolved and looked up in the cache, with nothing run.

It asks registries for what images stand for, and downloads what ADD names, as the build would, and remembers both; it
makes no layer, no image and no record of a build. What the build would say is searched for its secrets, and masked; no
layer is, because a plan reads none: where a step's result is in the cache and holds a secret, the build fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import msgspec

from builder.api.opening import opened
from builder.api.options import BuildOptions
from builder.api.planning import connector, locator, parse_dockerfile, plan_build
from builder.api.prepare import caches_of, check_options, make_environment
from builder.api.recording import project_of
from builder.api.special import dated, special_arguments
from builder.export.refused import refuse_annotations, refuse_undated
from builder.progress import Reporter, Warned, ignore
from builder.solver.bases import Bases
from builder.solver.forecast import RUNS, UNKNOWN, BlobToPull, Forecaster, StepForecast

if TYPE_CHECKING:
    from builder.solver.secrets import Guard


class Forecast(msgspec.Struct, frozen=True):
    """What a build would do, and what it would pull at most."""

    steps: tuple[StepForecast, ...]
    pull: tuple[BlobToPull, ...]

    @property
    def would_run(self) -> bool:
        """Whether anything would run, or could."""
        return any(step.outcome in (RUNS, UNKNOWN) for step in self.steps)

    @property
    def pull_size(self) -> int:
        """Bytes to be pulled."""
        return sum(blob.size for blob in self.pull)


def dry_run(options: BuildOptions, report: Reporter = ignore, stdin: BinaryIO | None = None) -> Forecast:
    """Say what `build` would do with these options. Raises what it would raise before its first step (BuilderError)."""
    check_options(options)
    special = special_arguments(options)
    for warning in special.warnings:
        report(Warned(warning))
    with opened(options, stdin, keep_git_dir=special.keep_git_dir) as (store, _, credentials, inputs):
        environment = make_environment(store, inputs, options, special, credentials, report)
        guard = environment.guard
        if guard is not None:
            report = environment.report = _masking(guard, report)
        bases = Bases(store, connector(options.environ, report), report, pull=options.pull, offline=options.offline)
        try:
            if guard is not None:
                from builder.api.guarding import search_inputs

                search_inputs(guard, inputs, report)
            found = dated(options, inputs, parse_dockerfile(store, inputs, guard), locator(inputs))
            environment.epoch = found.epoch
            refuse_undated(options.outputs, found.epoch)
            project = project_of(options)
            caches = caches_of(options, special, environment, bases)
            planned = plan_build(
                inputs, msgspec.structs.replace(options, build_args=found.build_args), found.dockerfile, bases, report
            )
            refuse_annotations(options.annotations, options.outputs, [image.platform for image in planned.images])
            if guard is not None:
                from builder.api.guarding import search_planned

                search_planned(guard, planned, options, locator(inputs))
            if caches is not None:
                caches.read(project)
            if options.break_at:
                from builder.solver.failed import find_break

                find_break(planned, options.break_at)
            forecaster = Forecaster(
                planned, environment, bases.layers, locator(inputs), project, bases.digest, options.no_cache
            )
            steps = tuple(forecaster.forecast())
            forecast = Forecast(steps, tuple(forecaster.to_pull()))
            return forecast if guard is None else guard.mask_record(forecast)
        except BaseException as error:
            if guard is not None:
                guard.redact(error)
            raise
        finally:
            environment.close()
            bases.close()


def _masking(guard: Guard, report: Reporter) -> Reporter:
    """A reporter that passes on what it is told without secrets."""
    return lambda event: report(guard.mask_event(event))
