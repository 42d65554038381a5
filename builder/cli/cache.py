"""`builder cache`: the cache mounts of RUN, as objects."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from builder.cli.flags import Command
from builder.cli.format import ago, moment, print_rows, size
from builder.cli.settings import Settings
from builder.cli.stores import Failures, archive_input, archive_output, open_store
from builder.errors import BuilderError, UsageError
from builder.filesystem.names import printable
from builder.store.mounts import find_mounts, is_in_use, remove_mount, stored_mounts

if TYPE_CHECKING:
    from builder.store.mounts import StoredMount
    from builder.store.store import Store

_HEADERS = {
    "Name": "NAME",
    "ID": "ID",
    "Size": "SIZE",
    "LastUsed": "LAST USED",
    "LastUsedAt": "LAST USED AT",
    "InUse": "IN USE",
}
_COLUMNS = "{{.Name}}\t{{.ID}}\t{{.Size}}\t{{.LastUsed}}\t{{.InUse}}"
_SHORT = 12  # digits of a name


@click.group(
    "cache",
    epilog="Example: builder cache ls",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
def command() -> None:
    """Manage what RUN --mount=type=cache keeps between builds.

    A cache mount is known by the id that the Dockerfile gives it, or else by its target; one id may have several mounts
    that start from different files, owners or modes. ID is such an id, or the first digits of a NAME.
    """


@command.command("ls", cls=Command, epilog="Example: builder cache ls --format '{{.ID}} {{.Size}}'")
@click.option("-q", "--quiet", is_flag=True, help="Only the names.")
@click.option("--no-trunc", is_flag=True, help="Show whole names.")
@click.option("--format", "form", default="", metavar="FORMAT", help="table [TEMPLATE], json, or a Go template.")
@click.pass_obj
def ls(settings: Settings, quiet: bool, no_trunc: bool, form: str) -> None:
    """List the cache mounts, with the space that their files take."""
    mounts = stored_mounts(open_store(settings, as_root=True))
    if quiet and not form:
        for mount in mounts:
            print(mount.name if no_trunc else _short(mount.name))
        return
    print_rows([_row(mount, no_trunc) for mount in mounts], form, _HEADERS, _COLUMNS)


def _row(mount: StoredMount, no_trunc: bool) -> dict[str, str]:
    from builder.store.collect import tree_size

    used = datetime.fromtimestamp(mount.used, UTC)
    return {
        "Name": mount.name if no_trunc else _short(mount.name),
        "ID": printable(mount.id) or "<unknown>",
        "Size": size(tree_size(mount.data)),
        "LastUsed": ago(used),
        "LastUsedAt": moment(used),
        "InUse": "true" if is_in_use(mount) else "false",
    }


def _short(name: str) -> str:
    """The first digits of a name, and the number of a private copy."""
    digits, dot, number = name.partition(".")
    return digits[:_SHORT] + dot + number


@command.command(
    "export",
    cls=Command,
    short_help="Write cache mounts to an archive",
    epilog="Example: builder cache export -o caches.tar.zst npm /root/.cache",
)
@click.argument("ids", metavar="ID…", nargs=-1)
@click.option("-a", "--all", "everything", is_flag=True, help="Export all cache mounts.")
@click.option("-o", "--output", default="", metavar="FILE", help="Where to write (default: standard output).")
@click.pass_obj
def export(settings: Settings, ids: tuple[str, ...], everything: bool, output: str) -> None:
    """Write cache mounts to an archive (a tar, compressed with zstd), which 'builder cache import' reads.

    A build that uses one of them is waited for.
    """
    from builder.store.mount_archive import write_mounts

    store = open_store(settings, as_root=True)
    mounts = _chosen(store, ids, everything)
    with archive_output(output) as file:
        write_mounts(mounts, file)


@command.command("import", cls=Command, epilog="Example: builder cache import -i caches.tar.zst")
@click.option("-i", "--input", "path", default="", metavar="FILE", help="The archive (default: standard input).")
@click.option("-f", "--force", is_flag=True, help="Replace mounts that are there.")
@click.pass_obj
def import_(settings: Settings, path: str, force: bool) -> None:
    """Read cache mounts from an archive. Those that are there stay as they are, unless --force replaces them."""
    from builder.store.mount_archive import read_mounts

    store = open_store(settings, as_root=True)
    with archive_input(path) as file:
        imported = read_mounts(store, file, replace=force)
    for mount in imported:
        what = "Kept" if mount.kept else "Imported"
        print(f"{what}: {_short(mount.name)} {printable(mount.id)}{' (it was there)' if mount.kept else ''}")


@command.command("rm", cls=Command, epilog="Example: builder cache rm npm")
@click.argument("ids", metavar="ID…", nargs=-1)
@click.option("-a", "--all", "everything", is_flag=True, help="Remove all cache mounts.")
@click.option("-f", "--force", is_flag=True, help="Do not ask before --all.")
@click.pass_obj
def rm(settings: Settings, ids: tuple[str, ...], everything: bool, force: bool) -> None:
    """Remove cache mounts. One that a build uses stays, and is an error."""
    from builder.store.collect import tree_size

    store = open_store(settings, as_root=True)
    failures = Failures()
    mounts = _chosen(store, ids, everything, failures)
    if everything and not force:
        from builder.cli.pruning import ask

        ask("This will remove all cache mounts.")
    reclaimed = 0
    for mount in mounts:
        try:
            taken = tree_size(mount.data)
            remove_mount(store, mount)
        except BuilderError as error:
            failures.add(error)
        else:
            reclaimed += taken
            print(f"Deleted: {_short(mount.name)} {printable(mount.id)}".rstrip())
    print(f"Total reclaimed space: {size(reclaimed)}")
    failures.end()


def _chosen(
    store: Store, ids: tuple[str, ...], everything: bool, failures: Failures | None = None
) -> list[StoredMount]:
    """The mounts that were named, each once. Without `failures` an id that nothing has is raised at once."""
    if everything == bool(ids):
        raise UsageError("name cache mounts by their ids, or give --all", remedy="'builder cache ls' lists them")
    if everything:
        return stored_mounts(store)
    found: dict[str, StoredMount] = {}
    for text in ids:
        try:
            found.update((mount.name, mount) for mount in find_mounts(store, text))
        except BuilderError as error:
            if failures is None:
                raise
            failures.add(error)
    return list(found.values())
