"""What a build tells about itself: in its attestations, and to whoever asked for its provenance."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from builder.api.inputs import Inputs
from builder.api.options import BuildOptions
from builder.export.attestations import Provenance
from builder.export.provenance import Record, provenance
from builder.plan.steps import Plan
from builder.solver.bases import Bases
from builder.solver.environment import Environment
from builder.solver.solve import Root
from builder.store.records import storable


def make_record(
    options: BuildOptions,
    inputs: Inputs,
    planned: Plan,
    roots: Mapping[int, Root],
    keys: Mapping[int, str],
    bases: Bases,
    environment: Environment,
    seconds: float,
) -> Record:
    """What a build was, once its steps are done; it began `seconds` ago. `keys` are the steps' keys."""
    return Record(
        plan=planned,
        roots=roots,
        bases=bases.named_digests,
        materials=environment.materials,
        request=_request(options),
        dockerfile=storable(inputs.path or inputs.name),
        fetched=bool(inputs.path),
        text=inputs.text,
        remote=frozenset(inputs.remote),
        origins=inputs.origins,
        started=time.time() - seconds,
        invocation=secrets.token_hex(16),
        epoch=environment.epoch,
        keys=keys,
    )


def tell_provenance(record: Record, options: BuildOptions, *, several: bool) -> dict[str, dict[str, Any]]:
    """The provenance of each image, by its platform if there are `several`: as in buildx all of it, or with `min` no
    configuration of the build and no metadata."""
    given = options.attestations.provenance if options.attestations is not None else None
    wanted = Provenance(version="v0.2", builder_id=given.builder_id if given is not None else "")
    told = {}
    for position, image in enumerate(record.plan.images):
        made = provenance(record, position, wanted, ()).value
        if options.told_provenance == "min":
            made = {key: value for key, value in made.items() if key not in ("buildConfig", "metadata")}
        told[str(image.platform) if several else ""] = made
    return told


def _request(options: BuildOptions) -> dict[str, str]:
    """The options by the names that BuildKit's frontend knows them by. What is of this machine only is left out."""
    found = {f"build-arg:{name}": value for name, value in options.build_args.items()}
    found |= {f"label:{name}": value for name, value in options.labels.items()}
    for name, value in options.contexts.items():
        local = "://" not in value and not value.startswith("target:")
        found[f"context:{name}"] = f"local:{name}" if local or value.startswith("oci-layout://") else value
    if options.target:
        found["target"] = options.target
    if options.no_cache is not None:
        found["no-cache"] = ",".join(sorted(options.no_cache))
    if options.network not in ("", "default"):
        found["force-network-mode"] = options.network
    limits = options.limits
    if limits.hosts:
        found["add-hosts"] = ",".join(f"{name}={address}" for name, address in limits.hosts)
    if limits.shm_size:
        found["shm-size"] = str(limits.shm_size)
    if limits.ulimits:
        found["ulimit"] = ",".join(f"{name}={soft}:{hard}" for name, soft, hard in limits.ulimits)
    return dict(sorted(found.items()))
