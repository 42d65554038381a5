"""One build from beginning to end: inputs, plan, steps, image, outputs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from builder.api.context_use import warn_of_large_copies
from builder.api.inputs import Inputs
from builder.api.opening import inputs_of, opened_store, trimming
from builder.api.options import BuildOptions, BuildResult
from builder.api.planning import connector, locator, parse_dockerfile, plan_build
from builder.api.prepare import caches_of, check_options, make_environment
from builder.api.recording import Recording, recording
from builder.api.special import Dated, dated, special_arguments
from builder.export.deliver import Approve, Delivery, deliver
from builder.export.destination import WrittenFile
from builder.export.output import image_names, output_names
from builder.export.refused import refuse_annotations, refuse_undated
from builder.oci import reference
from builder.oci.reference import Reference
from builder.oci.spec import INDEXES
from builder.plan.locate import Locator
from builder.plan.steps import Plan
from builder.progress import Reporter, Warned, ignore
from builder.solver.bases import Bases
from builder.solver.commit import Committed
from builder.solver.environment import Environment
from builder.solver.solve import Solver
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.api.caches import Caches
    from builder.export.push_check import PushCheck


def build(options: BuildOptions, report: Reporter = ignore, stdin: BinaryIO | None = None) -> BuildResult:
    """Build an image and deliver it to the outputs (without any: to the store, under the tags).

    `report` is told what happens, from several threads. Raises BuilderError.
    """
    started = time.monotonic()
    names = check_options(options)
    special = special_arguments(options)
    for warning in special.warnings:
        report(Warned(warning))
    with (
        opened_store(options) as (store, scratch, credentials),
        trimming(store, options, report),
        recording(store, options, report) as record,
    ):
        inputs = inputs_of(options, store, scratch, credentials, stdin, keep_git_dir=special.keep_git_dir)
        record.text = inputs.text
        bases = Bases(store, connector(options.environ, record), record, pull=options.pull, offline=options.offline)
        environment = make_environment(store, inputs, options, special, credentials, record)
        environment.ended.append(bases.close)
        environment.copied = warn_of_large_copies(locator(inputs), record)
        checks: list[PushCheck] = []
        environment.running = _push_check(options, names, environment, checks)
        try:
            if environment.guard is not None:
                from builder.api.guarding import search_inputs

                record.guard = environment.guard
                search_inputs(environment.guard, inputs, record)
            found = dated(options, inputs, parse_dockerfile(store, inputs, environment.guard), locator(inputs))
            environment.epoch = found.epoch
            refuse_undated(options.outputs, found.epoch)
            if options.keep_failed or options.break_at:
                from builder.api.failing import Keeper

                environment.keep = Keeper(environment, options, record.build, record.project)
            caches = caches_of(options, special, environment, bases)
            planned, solver = _solve(inputs, options, found, bases, environment, caches, record)
            roots = solver.roots
            archives: list[WrittenFile] = []
            attester, account = None, None
            if options.attestations or options.told_provenance:
                from builder.api.attesting import make_record

                keys = {number: solved.trace.key for number, solved in solver.solved.items()}
                seconds = time.monotonic() - started
                account = make_record(options, inputs, planned, roots, keys, bases, environment, seconds)
            if options.attestations and account is not None:
                from builder.export.attest import Attester

                attester = Attester(store, options.attestations, account, environment.report)
            delivery = Delivery(
                store=store,
                images=planned.images,
                roots=roots,
                names=names,
                outputs=options.outputs,
                annotations=options.annotations + (caches.annotations(planned, roots) if caches else ()),
                squash=options.squash,
                index=special.index,
                epoch=found.epoch,
                compression=environment.compression,
                report=record,
                connect=connector(options.environ, record),
                approve=_approve(store, options, planned, locator(inputs)),
                attester=attester,
                stated=bases.stated,
                wrote=archives.append,
            )
            committed = deliver(delivery)
            if caches is not None:
                caches.write(planned, roots, record.portable_steps())
            record.image_ids = committed.config_digests if committed is not None else ()
            record.result = _result(store, options, planned, committed, archives, time.monotonic() - started)
            if options.told_provenance and account is not None:
                from builder.api.attesting import tell_provenance

                told = tell_provenance(account, options, several=special.index or len(planned.images) > 1)
                record.result = msgspec.structs.replace(record.result, provenance=told)
            if os.path.isdir(os.path.join(store.root, "failed")):
                from builder.api.failing import forget_failures

                forget_failures(store, record.project)
        except BaseException as error:
            cause = checks[0].cause_of(error) if checks else error
            if environment.guard is not None:
                environment.guard.redact(cause)
            if cause is not error:
                raise cause from None
            raise
        finally:
            for check in checks:
                check.close()
            environment.close()
            bases.close()
    return record.result


def _result(
    store: Store,
    options: BuildOptions,
    planned: Plan,
    committed: Committed | None,
    archives: list[WrittenFile],
    seconds: float,
) -> BuildResult:
    """What was made; what became of the steps is added when the record is finished."""
    platforms = tuple(str(image.platform) for image in planned.images)
    if committed is None:
        return BuildResult(platforms=platforms, seconds=seconds, root=store.root)
    by_digest = any(output.by_digest for output in options.outputs)
    names = [
        reference.parse(name, default_tag=not by_digest).familiar for name in image_names(options.outputs, options.tags)
    ]
    is_index = committed.descriptor.media_type in INDEXES
    return BuildResult(
        image_id=committed.descriptor.digest if is_index else committed.config_digests[0],
        digest=committed.descriptor.digest,
        media_type=committed.descriptor.media_type,
        size=committed.descriptor.size,
        tags=tuple(dict.fromkeys(names)),
        platforms=platforms,
        seconds=seconds,
        root=store.root,
        archives=tuple(archives),
    )


def _push_check(
    options: BuildOptions, names: tuple[Reference, ...], environment: Environment, checks: list[PushCheck]
) -> Callable[[], None] | None:
    """What begins to find out, once, whether the image may be pushed, and is then in `checks`; None of one that is not
    pushed."""
    if not any(output.push for output in options.outputs):
        return None
    lock = threading.Lock()

    def begin() -> None:
        with lock:
            if checks:
                return
            from builder.export.push_check import PushCheck

            pushed = [name for output in options.outputs if output.push for name in output_names(output, names)[1]]
            checks.append(PushCheck(pushed, connector(options.environ, ignore), environment.cancel))
        environment.ended.append(checks[0].close)
        checks[0].begin()

    return begin


def _approve(store: Store, options: BuildOptions, planned: Plan, locate: Locator) -> Approve | None:
    """What refuses images that are over the budget, if there is one."""
    if options.budget is None:
        return None
    from builder.api.budget import approver

    return approver(store, options.budget, planned, locate)


def _solve(
    inputs: Inputs,
    options: BuildOptions,
    found: Dated,
    bases: Bases,
    environment: Environment,
    caches: Caches | None,
    record: Recording,
) -> tuple[Plan, Solver]:
    """Plan the build and solve all that its images need."""
    options = msgspec.structs.replace(options, build_args=found.build_args)
    planned = plan_build(inputs, options, found.dockerfile, bases, environment.report)
    refuse_annotations(options.annotations, options.outputs, [image.platform for image in planned.images])
    locate = locator(inputs)
    if environment.guard is not None:
        from builder.api.guarding import search_planned

        search_planned(environment.guard, planned, options, locate)
    if caches is not None:
        caches.read(record.project)
    solver = Solver(planned, environment, bases.layers, locate, record.project)
    record.watch(planned, solver, bases.digest)
    if options.break_at and environment.keep is not None:
        from builder.api.failing import stopper

        environment.before = stopper(environment.keep, planned, options.break_at)
    # More than processors: some steps wait for a network or a disk, and the last ones should not leave one idle.
    jobs = options.jobs or max(4, 2 * len(os.sched_getaffinity(0)))
    solver.solve([image.node for image in planned.images], jobs)
    environment.rest_sandbox()
    if environment.guard is not None:
        from builder.solver.secret_search import search_layers

        search_layers(environment.guard, environment.store, planned, solver.roots, locate)
    return planned, solver
