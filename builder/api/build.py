"""One build from beginning to end: inputs, plan, steps, image, outputs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import BinaryIO

import msgspec

from builder import config as configuration
from builder.api.inputs import Inputs, load_inputs
from builder.api.options import BuildOptions, BuildResult, SecretSource
from builder.api.planning import connector, locator, parse_dockerfile, plan_build
from builder.api.special import special_arguments
from builder.errors import StepFailed
from builder.export.deliver import Delivery, deliver
from builder.filesystem.compression import Compression
from builder.oci import reference
from builder.plan.steps import Plan
from builder.progress import Reporter, Warned, ignore
from builder.solver.bases import Bases
from builder.solver.contexts import Contexts
from builder.solver.environment import Environment
from builder.solver.solve import Root, Solver
from builder.store.store import Store


def build(options: BuildOptions, report: Reporter = ignore, stdin: BinaryIO | None = None) -> BuildResult:
    """Build an image and deliver it to the outputs (without any: to the store, under the tags).

    `report` is told what happens, from several threads. Raises BuilderError.
    """
    started = time.monotonic()
    names = tuple(reference.parse(tag) for tag in options.tags)
    special = special_arguments(options)
    for warning in special.warnings:
        report(Warned(warning))
    root = options.root or configuration.default_root(options.environ)
    with closing(Store(root)) as store, store.lease(), store.scratch() as scratch:
        inputs = load_inputs(
            store,
            options.context,
            options.dockerfile,
            options.contexts,
            scratch,
            stdin,
            keep_git_dir=special.keep_git_dir,
        )
        bases = Bases(store, connector(options.environ, report), report, pull=options.pull)
        environment = Environment(
            store,
            Contexts(inputs.openers),
            report,
            epoch=special.epoch,
            compression=_compression(options),
            limits=msgspec.structs.replace(options.limits, hostname=special.hostname or options.limits.hostname),
            secrets={name: _secret(name, source, options.environ) for name, source in options.secrets.items()},
            agents=options.agents,
        )
        try:
            planned, roots = _solve(store, inputs, options, bases, environment)
            delivery = Delivery(
                store=store,
                images=planned.images,
                roots=roots,
                names=names,
                outputs=options.outputs,
                annotations=options.annotations,
                squash=options.squash,
                index=special.index,
                epoch=special.epoch,
                compression=environment.compression,
                report=report,
                connect=connector(options.environ, report),
            )
            committed = deliver(delivery)
        finally:
            environment.close()
            bases.close()
    seconds = time.monotonic() - started
    if committed is None:
        return BuildResult(seconds=seconds)
    return BuildResult(
        image_id=committed.config_digests[0],
        digest=committed.descriptor.digest,
        media_type=committed.descriptor.media_type,
        size=committed.descriptor.size,
        names=tuple(name.familiar for name in names),
        seconds=seconds,
    )


def _compression(options: BuildOptions) -> Compression:
    """How new layers are compressed: as the outputs want it if they agree, so that nothing is compressed twice."""
    wanted = {output.compression or Compression() for output in options.outputs if output.type not in ("tar", "local")}
    return wanted.pop() if len(wanted) == 1 else Compression()


def _solve(
    store: Store, inputs: Inputs, options: BuildOptions, bases: Bases, environment: Environment
) -> tuple[Plan, Mapping[int, Root]]:
    planned = plan_build(inputs, options, parse_dockerfile(store, inputs), bases, environment.report)
    lineage = os.path.abspath(inputs.name) + "|" + os.path.abspath(options.context)
    solver = Solver(planned, environment, bases.layers, locator(inputs), lineage)
    jobs = options.jobs or len(os.sched_getaffinity(0))
    return planned, solver.solve([image.node for image in planned.images], jobs)


def _secret(name: str, source: SecretSource, environ: Mapping[str, str]) -> Callable[[], bytes]:
    def read() -> bytes:
        if source.variable:
            if source.variable not in environ:
                raise StepFailed(f"secret {name!r}: the variable {source.variable} is not set")
            return environ[source.variable].encode("utf-8", "surrogateescape")
        try:
            with open(source.path, "rb") as file:
                return file.read()
        except OSError as error:
            raise StepFailed(f"secret {name!r} cannot be read: {error.strerror}", place=source.path) from error

    return read
