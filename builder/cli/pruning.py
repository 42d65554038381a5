"""What `prune` and `image prune` share: the question, the filters, and what is said afterwards."""

from __future__ import annotations

import sys

from builder.cli.filters import PRUNING, moment_of, parse_filters, predicate, truth
from builder.cli.format import size
from builder.errors import BuilderError
from builder.store.describe import Describer
from builder.store.prune import Pruned, prune
from builder.store.room import is_full
from builder.store.store import Store


def ask(warning: str) -> None:
    """Ask before something is removed. Raises BuilderError unless the answer is yes."""
    print(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    answer = sys.stdin.readline().strip().lower()
    if answer not in ("y", "yes"):
        raise BuilderError("nothing was removed: the answer was not yes", remedy="-f does not ask")


def run(store: Store, *, everything: bool, filters: tuple[str, ...], cache: bool) -> None:
    """Prune dangling images (with `everything` all) that pass the filters, with `cache` build cache too; print it."""
    given = parse_filters(filters, PRUNING)
    dangling = given.pop("dangling", None)
    if dangling is not None and not truth(dangling[-1], "dangling"):
        everything = True
    describer = Describer(store)
    passes = predicate(given, store.images, describer)
    images = [row for row in describer.summaries() if (everything or row.reference is None) and passes(row)]
    before = min((moment_of(text).timestamp() for text in given.get("until", ())), default=None)
    about_cache = cache and not given.keys() & {"label", "label!"}  # cache has no labels
    _print(prune(store, images, cache=("all" if everything else "unused") if about_cache else "", before=before))
    if not cache:
        hint_at_cache(store)


def hint_at_cache(store: Store) -> None:
    """Say what else there is to be removed, if the disk is still full without some images."""
    if is_full(store.root):
        print(
            "WARNING: the disk is still full\n"
            "help: 'builder prune' removes the build cache, which keeps layers of images that are gone",
            file=sys.stderr,
        )


def _print(pruned: Pruned) -> None:
    if pruned.images:
        print("Deleted Images:")
        for removal in pruned.images:
            for name in removal.untagged:
                print(f"untagged: {name.familiar}")
            print(f"deleted: {removal.deleted}")
        print()
    if pruned.steps:
        print(f"Deleted build cache records: {pruned.steps}\n")
    if pruned.failed:
        print(f"Deleted failed steps: {pruned.failed}\n")
    print(f"Total reclaimed space: {size(pruned.size)}")
