"""A cache in a directory that several builds write at once."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from builder.export.cache import _write_layout
from builder.export.cache_options import CacheTarget
from builder.oci.layout import Layout
from builder.oci.spec import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest, digest_of, encode


def write(path: Path, tag: str, meanwhile: Callable[[], object] = lambda: None, *, reset: bool = False) -> set[str]:
    """Write a cache of one document; `meanwhile` happens before its manifest is written. Returns its blobs."""
    config = Descriptor(OCI_CONFIG, digest_of(tag.encode()), len(tag))
    data = encode(Manifest(schema_version=2, media_type=OCI_MANIFEST, config=config, layers=[]))
    manifest = Descriptor(OCI_MANIFEST, digest_of(data), len(data))

    class Blobs:
        def open(self, digest: str) -> BinaryIO:
            if digest == config.digest:
                return io.BytesIO(tag.encode())
            meanwhile()
            return io.BytesIO(data)

    blobs: Any = Blobs()
    _write_layout(CacheTarget(path=str(path), tag=tag, reset=reset), manifest, [config], blobs)
    return {config.digest, manifest.digest}


def test_an_export_that_ends_meanwhile_takes_nothing_away(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    layout = Layout(str(path))
    expected = write(path, "one", lambda: write(path, "two")) | write(path, "two")
    assert set(layout.digests()) == expected
    assert sorted(one.name for one in path.iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_a_reset_takes_nothing_that_another_is_about_to_name(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    layout = Layout(str(path))
    expected = write(path, "one", lambda: write(path, "two", reset=True)) | write(path, "two")
    with layout.writing():
        unneeded = layout.put(b"unneeded")
    assert set(layout.digests()) == {*expected, unneeded}
    write(path, "two", reset=True)
    assert set(layout.digests()) == expected
