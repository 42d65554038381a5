"""What the steps of a build share, made from its options: for builds and for plans of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from builder.api.inputs import Inputs
from builder.api.opening import Credentials, guard_of
from builder.api.options import BuildOptions
from builder.api.special import Special
from builder.errors import UsageError
from builder.export.output import output_names
from builder.export.refused import refuse_outputs
from builder.filesystem.compression import Compression
from builder.oci import reference
from builder.oci.reference import Reference
from builder.progress import Reporter
from builder.solver.bases import Bases
from builder.solver.contexts import Contexts
from builder.solver.environment import Environment
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.api.caches import Caches
    from builder.solver.waiting import Waiting


def check_options(options: BuildOptions) -> tuple[Reference, ...]:
    """The names that `tags` give. Raises InvalidReference, also for those of outputs, and UsageError for what no build
    can do: give a name with a digest (as in Docker's daemon), which is what the image turns out to have."""
    by_digest = any(output.by_digest for output in options.outputs)  # then it matters whether people wrote a tag
    names = tuple(reference.parse(tag, default_tag=not by_digest) for tag in options.tags)
    stated = [name for output in options.outputs for name in output_names(output, names)[0]]
    for name in (*names, *stated):
        if name.digest is not None:
            raise UsageError("a new name cannot have a digest", place=name.familiar, remedy="write NAME[:TAG]")
    refuse_outputs(options.outputs, named=bool(names))
    if any(output.delete for output in options.outputs):
        from builder.export.mirror import refuse_deleting

        refuse_deleting(options.outputs, options.allow)
    if options.offline:
        from builder.api.offline import check_offline

        check_offline(options)
    if options.attestations:
        from builder.export.attestations import check_outputs

        check_outputs(options.attestations, options.outputs)
    return names


def make_environment(
    store: Store,
    inputs: Inputs,
    options: BuildOptions,
    special: Special,
    credentials: Credentials,
    report: Reporter,
) -> Environment:
    """The environment of a build's steps."""
    environment = Environment(
        store,
        Contexts(inputs.openers),
        report,
        epoch=special.epoch,
        compression=_compression(options),
        limits=msgspec.structs.replace(options.limits, hostname=special.hostname or options.limits.hostname),
        secrets=credentials.secrets,
        agents=credentials.agents,
        offline=options.offline,
        isolated=options.offline and not options.network,
        guard=guard_of(options, credentials),
        isolation=options.isolation,
        environ=options.environ,
    )
    store.layers.check = environment.check_cancelled
    store.layers.waiting = partial(_fetched_elsewhere, environment)
    return environment


def _fetched_elsewhere(environment: Environment, digest: str) -> Waiting:
    """What waits for a layer that another build fetches or unpacks."""
    from builder.solver.waiting import Waiting

    return Waiting(environment, f"waiting for another build that fetches or unpacks {digest[:19]}")


def caches_of(options: BuildOptions, special: Special, environment: Environment, bases: Bases) -> Caches | None:
    """The caches that the build names, if it names any."""
    if not (options.cache_from or options.cache_to or special.inline_cache):
        return None
    from builder.api.caches import Caches

    return Caches(options, special, environment, bases)


def _compression(options: BuildOptions) -> Compression:
    """How new layers are compressed: as the outputs want it if they agree, so that nothing is compressed twice."""
    wanted = {output.compression or Compression() for output in options.outputs if output.holds_image}
    return wanted.pop() if len(wanted) == 1 else Compression()
