"""One build from beginning to end: inputs, plan, steps, image, outputs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import BinaryIO

from builder import config as configuration
from builder.api.inputs import Inputs, load_inputs
from builder.api.options import BuildOptions, BuildResult, SecretSource
from builder.api.planning import connector, locator, parse_dockerfile, plan_build
from builder.errors import StepFailed, UsageError
from builder.export.deliver import Delivery, deliver
from builder.filesystem.compression import Compression
from builder.oci import reference
from builder.plan.steps import Plan
from builder.progress import Reporter, ignore
from builder.solver.bases import Bases
from builder.solver.contexts import Contexts
from builder.solver.environment import Environment
from builder.solver.solve import Root, Solver
from builder.store.store import Store

_LATEST = 253_402_300_799  # the last second that a timestamp of RFC 3339 can name


def build(options: BuildOptions, report: Reporter = ignore, stdin: BinaryIO | None = None) -> BuildResult:
    """Build an image and deliver it to the outputs (without any: to the store, under the tags).

    `report` is told what happens, from several threads. Raises BuilderError.
    """
    started = time.monotonic()
    names = tuple(reference.parse(tag) for tag in options.tags)
    epoch = _epoch(options)
    root = options.root or configuration.default_root(options.environ)
    with closing(Store(root)) as store, store.lease(), store.scratch() as scratch:
        inputs = load_inputs(store, options.context, options.dockerfile, options.contexts, scratch, stdin)
        bases = Bases(store, connector(options.environ, report), report, pull=options.pull)
        environment = Environment(
            store,
            Contexts(inputs.openers),
            report,
            epoch=epoch,
            compression=_compression(options),
            limits=options.limits,
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
                epoch=epoch,
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


def _epoch(options: BuildOptions) -> int | None:
    """SOURCE_DATE_EPOCH, from the build arguments or else the environment."""
    text = options.build_args.get("SOURCE_DATE_EPOCH", options.environ.get("SOURCE_DATE_EPOCH", ""))
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise UsageError(
            f"SOURCE_DATE_EPOCH={text!r} is not a number of seconds", remedy="set it to seconds since 1970, or unset it"
        )
    if int(text) > _LATEST:
        raise UsageError(f"SOURCE_DATE_EPOCH={text} is after the year 9999", remedy="set it to seconds since 1970")
    return int(text)


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
