"""`builder fsck`: check the store, and mend it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

import click

from builder.cli.flags import Command
from builder.cli.format import size
from builder.cli.settings import Settings
from builder.errors import EXIT_FAILED, Unsupported, UsageError
from builder.store.check_session import LEFTOVER, Depth, Problem


@click.command("fsck", cls=Command, epilog="Example: builder fsck -n")
@click.option("-n", "--dry-run", is_flag=True, help="Only check; change nothing.")
@click.option("--repair", is_flag=True, help="Also drop the names of images that are lost.")
@click.option("--deep", is_flag=True, help="Also compare the contents of unpacked layers with their archives.")
@click.option("--format", "form", default="text", type=click.Choice(["text", "json"]), help="How the result is shown.")
@click.pass_obj
def command(settings: Settings, dry_run: bool, repair: bool, deep: bool, form: str) -> int:
    """Check every blob, image, cache record and unpacked layer of the store, and repair what can be repaired.

    What can be fetched or made again is removed, what cannot be read is moved to quarantine/ in the store. With
    --repair the names of images that are lost are dropped, too.

    Exit status: 0 if all is well or was repaired, 1 if problems remain.
    """
    from builder.api.checking import check_store

    if dry_run and repair:
        raise UsageError("-n and --repair exclude each other")
    _become_root()
    bar = _Bar() if sys.stderr.isatty() else None
    try:
        result = check_store(settings.root, Depth(not dry_run, repair, deep), bar or _silent, os.environ)
    finally:
        if bar is not None:
            bar.close()
    remaining = result.remaining()
    if form == "json":
        import msgspec

        document: dict[str, Any] = msgspec.to_builtins(result)
        document["remaining"] = len(remaining)
        print(msgspec.json.format(msgspec.json.encode(document)).decode())
    else:
        for problem in result.problems:
            _show(problem)
        counts = result.counts
        looked_at = ", ".join(
            f"{counts.get(what, 0)} {what}" for what in ("images", "records", "snapshots", "builds", "mounts")
        )
        print(f"checked {counts.get('blobs', 0)} blobs ({size(counts.get('bytes', 0))}), {looked_at}")
        if result.read_only:
            print("the store can only be read: nothing is repaired")
        print(_summary(result.problems, remaining))
    return EXIT_FAILED if remaining else 0


def _become_root() -> None:
    """Unpacked layers have files of other owners; without root a user namespace is entered, if there can be one."""
    from builder.cli.rootless import become_root

    with suppress(Unsupported):
        become_root()


def _show(problem: Problem) -> None:
    print(f"{problem.severity}: {problem.area} {problem.place}: {problem.cause}")
    if problem.repair:
        print(f"  repaired: {problem.repair}")
    if problem.remedy:
        print(f"  help: {problem.remedy}")


def _summary(problems: tuple[Problem, ...], remaining: list[Problem]) -> str:
    if not problems:
        return "everything is in order"
    leftovers = sum(1 for problem in problems if problem.severity == LEFTOVER)
    damage = len(problems) - leftovers
    parts = [f"{damage} damaged, {damage - len(remaining)} repaired, {len(remaining)} remain"] if damage else []
    if leftovers:
        parts.append(f"{leftovers} left over, which do no harm")
    return "; ".join(parts)


def _silent(what: str, done: int, total: int) -> None:
    """Nobody watches."""


class _Bar:
    """How far the check is, on a terminal."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._make = tqdm
        self._what = ""
        self._bar: Any = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self.close()
            self._what = what
            self._bar = self._make(total=total, desc=what, unit="B" if what == "blobs" else "", unit_scale=True)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
