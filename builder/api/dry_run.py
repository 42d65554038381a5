"""A build that is only planned: parsed, resolved and looked up in the cache, with nothing run.

It asks registries for what images stand for, and downloads what ADD names, as the build would, and remembers both; it
makes no layer, no image and no record of a build.
"""

from __future__ import annotations

from typing import BinaryIO

import msgspec

from builder.api.opening import opened
from builder.api.options import BuildOptions
from builder.api.planning import connector, locator, parse_dockerfile, plan_build
from builder.api.prepare import caches_of, make_environment
from builder.api.recording import project_of
from builder.api.special import special_arguments
from builder.progress import Reporter, Warned, ignore
from builder.solver.bases import Bases
from builder.solver.forecast import RUNS, UNKNOWN, BlobToPull, Forecaster, StepForecast


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
    """Say what `build` would do with these options. Raises BuilderError where it could not begin."""
    if options.offline:
        from builder.api.offline import check_offline

        check_offline(options)
    special = special_arguments(options)
    for warning in special.warnings:
        report(Warned(warning))
    with opened(options, stdin, keep_git_dir=special.keep_git_dir) as (store, _, agents, inputs):
        bases = Bases(store, connector(options.environ, report), report, pull=options.pull, offline=options.offline)
        environment = make_environment(store, inputs, options, special, agents, report)
        try:
            project = project_of(options)
            caches = caches_of(options, special, environment, bases)
            planned = plan_build(inputs, options, parse_dockerfile(store, inputs, environment.guard), bases, report)
            if caches is not None:
                caches.read(project)
            forecaster = Forecaster(
                planned, environment, bases.layers, locator(inputs), project, bases.digest, options.no_cache
            )
            steps = tuple(forecaster.forecast())
            return Forecast(steps, tuple(forecaster.to_pull()))
        finally:
            environment.close()
            bases.close()
