"""One store, used inside a user namespace and outside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from builder.filesystem.snapshot_entries import SnapshotEntries
from builder.store.snapshot_directories import PRIVILEGED, own_snapshots, snapshot_names
from builder.store.store import Store
from tests.support.builds import PROJECT, Cli, busybox_context, needs_sandbox
from tests.support.namespaces import entering

OUTSIDE: tuple[str, ...] = ()
INSIDE = ("unshare", "--user", "--map-root-user", "--mount", "--propagation", "private")
HIDES = "RUN mkdir /d && touch /d/a\nRUN rm -r /d && mkdir /d && touch /d/b\n"
"""The second layer hides what is below its directory, by overlayfs's mark."""


def builder(wrapper: tuple[str, ...], cli: Cli, *arguments: str) -> str:
    words = [*wrapper, sys.executable, "-m", "builder", *cli.arguments(*arguments)]
    done = subprocess.run(words, env=cli.environ, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_sandbox
@pytest.mark.parametrize(
    ("first", "second"), [(INSIDE, OUTSIDE), (OUTSIDE, INSIDE)], ids=["inside first", "outside first"]
)
def test_what_one_unpacked_is_not_what_the_other_uses(
    cli: Cli, tmp_path: Path, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    if subprocess.run([*INSIDE, "true"], capture_output=True).returncode != 0:
        pytest.skip("user namespaces are not available")
    source = str(busybox_context(tmp_path / "c", HIDES))
    builder(first, cli, "build", "-t", "x", source)
    assert builder(second, cli, "run", "--rm", "x", "ls", "/d") == "b\n"
    builder(second, cli, "build", "-t", "x", "--no-cache", source)
    assert builder(first, cli, "run", "--rm", "x", "ls", "/d") == "b\n"
    assert len(snapshot_names(str(cli.root))) == 2
    for wrapper in (OUTSIDE, INSIDE):
        assert "everything is in order" in builder(wrapper, cli, "fsck")
    builder(OUTSIDE, cli, "rmi", "x")
    builder(OUTSIDE, cli, "prune", "--all", "--force")
    for name in snapshot_names(str(cli.root)):
        assert not [entry for entry in os.listdir(cli.root / name) if len(entry) >= 64]


@pytest.mark.skipif(os.geteuid() != 0, reason="what is privileged needs root")
def test_those_of_a_privileged_process(tmp_path: Path) -> None:
    assert own_snapshots(str(tmp_path)).entries.directory == str(tmp_path / PRIVILEGED)
    assert snapshot_names(str(tmp_path / "missing")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="the map of all IDs can be written by root alone")
def test_a_user_namespace_with_all_ids_is_one(tmp_path: Path) -> None:
    script = f"""\
import os
from builder.filesystem.overlay_format import is_privileged
from builder.sandbox.namespaces import in_user_namespace
print(is_privileged.__wrapped__(), in_user_namespace())
{entering("0 0 4294967295")}
print(is_privileged.__wrapped__(), in_user_namespace())
"""
    done = subprocess.run([sys.executable, "-uc", script], capture_output=True, text=True, cwd=PROJECT)
    if "Operation not permitted" in done.stderr:
        pytest.skip("user namespaces are not available")
    assert done.stdout.split() == ["True", "False", "False", "True"], done.stderr


def test_what_only_root_can_remove_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacked layers of root's in a user's store do not stop the user's `prune`."""
    store = Store(str(tmp_path))
    own = store.snapshots.entries.directory
    for directory in (own, str(tmp_path / "snapshots-user-0")):
        os.makedirs(f"{directory}/{'0' * 64}/fs")
    taken = SnapshotEntries.set_aside
    refused = str(tmp_path / "snapshots-user-0")

    def set_aside(entries: SnapshotEntries, keep: Collection[str]) -> list[str]:
        if entries.directory == refused:
            raise PermissionError
        return taken(entries, keep)

    monkeypatch.setattr(SnapshotEntries, "set_aside", set_aside)
    (gone,) = store.set_snapshots_aside([])
    assert gone.startswith(own)
    refused = own
    with pytest.raises(PermissionError):
        store.set_snapshots_aside([])
