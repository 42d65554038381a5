"""A layer, and stores that are told of it."""

from __future__ import annotations

import hashlib

from builder.filesystem.compress import LayerSink
from builder.filesystem.compression import GZIP
from builder.oci.spec import OCI_LAYER, Descriptor
from builder.store.store import Store
from tests.support.archives import archive

DATA = archive(("d/", {}), ("d/f", {"data": b"content"}))
DIFF_ID = "sha256:" + hashlib.sha256(DATA).hexdigest()
ORIGIN = "docker.io/library/x:latest"


def descriptor(data: bytes = DATA) -> Descriptor:
    return Descriptor(OCI_LAYER, "sha256:" + hashlib.sha256(data).hexdigest(), len(data))


def add(store: Store, data: bytes, kind: str = GZIP) -> str:
    """Keep a tar stream as a layer, as a build does."""
    with store.scratch() as scratch, LayerSink(scratch, compression=kind, sync=False) as sink:
        sink.write(data)
        blob = sink.finish()
        store.layers.add(blob)
    return blob.diff_id


def layer_bytes(store: Store, diff_id: str) -> bytes:
    stream = store.layers.open_tar(diff_id)
    found = b""
    while piece := stream.read(1 << 16):
        found += piece
    return found
