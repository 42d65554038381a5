"""Keeps the build cache within what builder.toml says, at the end of a build that wrote layers."""

from __future__ import annotations

import time
from collections.abc import Mapping

from builder import config as configuration
from builder.errors import BuilderError
from builder.progress import Reporter, Warned
from builder.store.store import Store


def trim_cache(store: Store, environ: Mapping[str, str], report: Reporter) -> None:
    """Remove build cache if there is a policy, and it asks for that. A build whose image is made does not fail by what
    is wrong with the policy, or with the store: it warns of that."""
    try:
        policy = configuration.cache_policy(environ)
        if policy is not None:
            _apply(store, policy)
    except (BuilderError, OSError) as error:
        report(Warned(f"the build cache was not limited: {error}"))


def _apply(store: Store, policy: configuration.CachePolicy) -> None:
    from builder.dockerfile.values import parse_duration, parse_size
    from builder.store.limit import Limit
    from builder.store.trim import trim

    sizes = (policy.max_used_space, policy.reserved_space, policy.min_free_space)
    limit = Limit(*(size if isinstance(size, int) else parse_size(size) for size in sizes))
    kept = policy.keep_duration
    seconds = kept if isinstance(kept, int) else parse_duration(kept) / 1e9
    if seconds or limit != Limit():
        trim(store, limit, time.time() - seconds if seconds else None)
