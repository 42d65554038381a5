"""Checking a store, with the registries that have what is damaged in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing

from builder import config as configuration
from builder.api.planning import connector
from builder.progress import ignore
from builder.store.check import Checked, check
from builder.store.check_session import Depth, Progress
from builder.store.records import LayerRecord
from builder.store.store import Store


def check_store(root: str, depth: Depth, progress: Progress, environ: Mapping[str, str]) -> Checked:
    """Check the store below `root`, and repair as far as `depth` says; what images lack is fetched again. `environ` is
    where limits, settings of registries and credentials are looked for. Raises ConfigError; StoreError, see `check`."""
    limits = configuration.load(environ).limits
    return check(root, depth, progress, _fetcher(root, environ), limits)


def _fetcher(root: str, environ: Mapping[str, str]) -> Callable[[LayerRecord], None]:
    def fetch(record: LayerRecord) -> None:
        from builder.solver.bases import Bases

        with closing(Store(root, configuration.limits_of(environ))) as store, store.lease():
            bases = Bases(store, connector(environ, ignore), ignore)
            try:
                store.layers.fetch_form(record)
                store.layout.settle()
            finally:
                bases.close()

    return fetch
