"""How two images differ, or two steps of one: files, configuration, packages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from builder.filesystem.compare import FileChange, compare
from builder.filesystem.contents import Contents
from builder.filesystem.packages import Package, PackageChange, compare_packages, database_files, installed
from builder.oci.spec import ImageConfig
from builder.store.configurations import configuration_of
from builder.store.contents import Selected, read_contents, read_stored
from builder.store.store import Store

_PAIRS = ("env", "labels")  # compared by name
_SETS = ("exposed_ports", "volumes")
_UNTOLD = ("args_escaped",)  # always equal to whether a CMD is in shell form


class Setting(msgspec.Struct, frozen=True):
    """A part of the configuration that differs: its name as Docker writes it, for a variable or label with the name
    (`Env.PATH`); a value is None where it is not set."""

    name: str
    before: Any
    after: Any


class Difference(msgspec.Struct, frozen=True):
    """All that differs. `configuration` is None where it cannot be compared: `unknown` are the steps, by the names that
    were given, of which it is not known."""

    files: tuple[FileChange, ...]
    configuration: tuple[Setting, ...] | None
    packages: tuple[PackageChange, ...]
    unknown: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.configuration or self.packages)


def compare_images(store: Store, before: Selected, after: Selected) -> Difference:
    """Compare. Layers that both begin with are read once, or not at all if there is nothing else."""
    shared = _shared(before, after)
    below = read_contents(store, msgspec.structs.replace(before, count=shared), digests=True)
    old = read_contents(store, before, digests=True, shared=below) if before.count > shared else below
    new = read_contents(store, after, digests=True, shared=below) if after.count > shared else below
    first, second = configuration_of(store, before), configuration_of(store, after)
    unknown = [side.name for side, known in ((before, first), (after, second)) if known is None]
    configuration = tuple(compare_configurations(first, second)) if first is not None and second is not None else None
    packages = compare_packages(_packages(store, before, old), _packages(store, after, new)) if old is not new else []
    return Difference(tuple(compare(old, new)), configuration, tuple(packages), tuple(dict.fromkeys(unknown)))


def compare_configurations(before: ImageConfig, after: ImageConfig) -> Iterator[Setting]:
    """What differs but times and history."""
    for name in ("os", "architecture", "variant", "author"):
        yield from _setting(name.title(), getattr(before, name) or None, getattr(after, name) or None)
    old, new = msgspec.to_builtins(before.config), msgspec.to_builtins(after.config)
    for field in msgspec.structs.fields(before.config):
        name = field.encode_name
        if field.name in _UNTOLD:
            continue
        first, second = old.get(name), new.get(name)
        if field.name in _PAIRS:
            yield from _pairs(name, _mapping(first), _mapping(second))
        elif field.name in _SETS:
            yield from _setting(name, sorted(first or ()) or None, sorted(second or ()) or None)
        else:
            yield from _setting(name, first, second)


def _setting(name: str, before: Any, after: Any) -> Iterator[Setting]:
    if before != after:
        yield Setting(name, before, after)


def _pairs(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Setting]:
    for key in (*before, *(key for key in after if key not in before)):
        yield from _setting(f"{name}.{key}", before.get(key), after.get(key))


def _mapping(value: list[str] | dict[str, str] | None) -> dict[str, str]:
    if isinstance(value, list):
        return {key: text for key, _, text in (pair.partition("=") for pair in value)}
    return value or {}


def _shared(before: Selected, after: Selected) -> int:
    """How many layers both begin with."""
    count = 0
    for first, second in zip(before.layers, after.layers, strict=False):
        if first.digest != second.digest:
            break
        count += 1
    return count


def _packages(store: Store, selected: Selected, contents: Contents) -> dict[Package, str]:
    managers = {stored: manager for manager, stored in database_files(contents)}
    return installed((managers[stored], content.read()) for stored, content in read_stored(store, selected, managers))
