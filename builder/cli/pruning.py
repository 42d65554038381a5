"""What `prune` and `image prune` share: the question, the filters, and what is said afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import msgspec

from builder.cli.cache_filters import CACHE, RECORDS, choice
from builder.cli.filters import PRUNING, moment_of, parse_filters, predicate, truth
from builder.cli.format import size
from builder.errors import BuilderError, UsageError
from builder.store.cached import Choice
from builder.store.describe import Describer, Summary
from builder.store.limit import Limit
from builder.store.prune import Pruned, prune
from builder.store.room import is_full
from builder.store.store import Store

_LABELS = frozenset({"label", "label!"})


class Wanted(msgspec.Struct, frozen=True):
    """What is to be removed: dangling images, or with `everything` all, that pass the filters; of the build cache what
    the `choice` takes, if there is one."""

    everything: bool
    filters: dict[str, list[str]]
    before: float | None
    choice: Choice | None


def wanted(everything: bool, texts: Iterable[str], *, images: bool = True) -> Wanted:
    """What the options ask for; without `images` of build cache alone. Raises UsageError, also for those that
    contradict each other: Docker's `-a` stands for dangling=false, and its daemon refuses that beside dangling=true."""
    texts = list(texts)
    if images:
        for key in RECORDS & {text.partition("=")[0] for text in texts}:
            raise UsageError(f"--filter {key} chooses build cache", remedy="'builder prune --cache' removes that alone")
    filters = parse_filters(texts, PRUNING if images else CACHE)
    records = {key: values for key, values in filters.items() if key in RECORDS}
    dangling = {truth(text, "dangling") for text in filters.pop("dangling", ())}
    if len(dangling | ({False} if everything else set())) > 1:
        other = "dangling=false" if False in dangling else "-a"
        raise UsageError(f"--filter dangling=true contradicts {other}", remedy="give one of them only")
    before = min((moment_of(text).timestamp() for text in filters.get("until", ())), default=None)
    return Wanted(everything or False in dangling, filters, before, choice(records) if records else None)


def limit(wanted: Wanted, most: str, reserved: str, free: str) -> Limit | None:
    """The limit that `--max-used-space`, `--reserved-space` and `--min-free-space` give the build cache, in buildx's
    units: 1g is 1 GiB. None if all are '' or 0, which to BuildKit is the same. Raises UsageError."""
    if not (most or reserved or free):
        return None
    from builder.cli.values import size as size_of

    found = Limit(
        size_of(most, "--max-used-space"), size_of(reserved, "--reserved-space"), size_of(free, "--min-free-space")
    )
    if wanted.filters.keys() & _LABELS:
        raise UsageError(
            "--filter label chooses images, and a limit is one of the build cache", remedy="give one of them"
        )
    return found if found != Limit() else None


def ask(warning: str) -> None:
    """Ask before something is removed. Raises BuilderError unless the answer is yes."""
    print(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    answer = sys.stdin.readline().strip().lower()
    if answer not in ("y", "yes"):
        raise BuilderError("nothing was removed: the answer was not yes", remedy="-f does not ask")


def ask_about_cache(wanted: Wanted, limit: Limit | None, *, images: bool) -> None:
    """Ask before `prune` removes what is wanted. Raises BuilderError unless the answer is yes."""
    items = ["all images" if wanted.everything else "all dangling images"] if images else []
    if limit is None:
        items += ["all build cache" if wanted.everything else "unused build cache"]
        items += ["all cache mounts that no running build uses"]
    else:
        items += ["build cache and cache mounts that were not used for longest, until their limits are kept"]
    if wanted.choice is None:
        items += ["all kept states of failed steps"]
    else:
        items = [f"{item}, as the filters choose" for item in items]
    ask("This will remove:\n" + "".join(f"  - {item}\n" for item in items))


def run(store: Store, wanted: Wanted, *, images: bool = True, cache: bool, limit: Limit | None = None) -> None:
    """Prune the images that are wanted, with `cache` build cache too, as far as a `limit` asks, without `images` that
    alone; print it."""
    describer = Describer(store)
    chosen: list[Summary] = []
    if images:
        passes = predicate(wanted.filters, store.images, describer)
        chosen = [row for row in describer.summaries() if (wanted.everything or row.reference is None) and passes(row)]
    about_cache = cache and not wanted.filters.keys() & _LABELS  # cache has no labels
    kind = "all" if wanted.everything else "unused"
    kind = kind if about_cache else ""
    _print(prune(store, chosen, cache=kind, before=wanted.before, limit=limit, choice=wanted.choice))
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
    if pruned.mounts:
        print(f"Deleted cache mounts: {pruned.mounts}\n")
    if pruned.failed:
        print(f"Deleted failed steps: {pruned.failed}\n")
    print(f"Total reclaimed space: {size(pruned.size)}")
