"""Images made of given layers, put into a store without a build."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder.oci import reference
from builder.oci.platform import host_platform
from builder.oci.spec import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest, encode
from builder.store.store import Store


def put_image(
    root: Path,
    name: str,
    layers: Sequence[bytes],
    *,
    lines: Sequence[str] = (),
    diff_ids: Sequence[str] | None = None,
    **config: Any,
) -> Descriptor:
    """Put an image under `name` into the store at `root`. `layers` are tar archives, lowest first, kept with gzip;
    `lines` what the history says of each; `config` the fields of the container's configuration, as JSON has them."""
    store = Store(str(root))
    host = host_platform()
    found = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers] if diff_ids is None else list(diff_ids)
    document = {
        "architecture": host.architecture,
        "os": host.os,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": found},
        "history": [{"created_by": line} for line in lines],
    }
    descriptors = []
    for layer in layers:
        data = gzip.compress(layer, 1, mtime=0)
        descriptors.append(Descriptor(f"{OCI_LAYER}+gzip", store.layout.put(data), len(data)))
    data = encode(document)
    config_descriptor = Descriptor(OCI_CONFIG, store.layout.put(data), len(data))
    manifest = encode(Manifest(2, config_descriptor, descriptors, OCI_MANIFEST))
    descriptor = Descriptor(OCI_MANIFEST, store.layout.put(manifest), len(manifest))
    store.images.tag(descriptor, [reference.parse(name)])
    store.close()
    return descriptor
