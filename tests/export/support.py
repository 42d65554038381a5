"""Images in a store, and a stack of layers flattened by hand."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

from builder.api.options import BuildOptions  # noqa: F401  (loads what Delivery names)
from builder.export.deliver import Delivery
from builder.filesystem.compress import LayerSink
from builder.filesystem.compression import Compression
from builder.oci import reference
from builder.oci.spec import ContainerConfig, ImageConfig, RootFS
from builder.plan.steps import HistoryLine, PlannedImage
from builder.progress import ignore
from builder.solver.solve import Root
from builder.store.store import Store
from tests.solver.support import HOST
from tests.support.archives import archive


def add_layer(store: Store, *entries: tuple[str, dict[str, Any]]) -> str:
    """A layer of these entries; returns its diff ID."""
    with store.scratch() as scratch, LayerSink(scratch) as sink:
        sink.write(archive(*entries))
        blob = sink.finish()
        store.layers.add(blob)
    return blob.diff_id


def delivery(store: Store, layers: tuple[str, ...], inherited: int = 0, **fields: Any) -> Delivery:
    """What a build of an image with these layers hands over, of which the lowest are its base's."""
    config = ImageConfig(
        architecture=HOST.architecture,
        os=HOST.os,
        rootfs=RootFS(diff_ids=list(layers[:inherited])),
        config=ContainerConfig(env=["A=1"], cmd=["x"]),
    )
    lines = tuple(HistoryLine(f"RUN {number}", number) for number in range(inherited, len(layers)))
    image = PlannedImage(platform=HOST, node=len(layers), config=config, history=lines)
    roots = {number: Root(layers[: number + 1], 1.5e9) for number in range(len(layers))}
    roots[len(layers)] = Root(layers, 1.5e9)
    settings: dict[str, Any] = {
        "names": (reference.parse("app:1"),),
        "outputs": (),
        "annotations": (),
        "squash": "",
        "epoch": 1_500_000_000,
        "compression": Compression(),
        "report": ignore,
        **fields,
    }
    return Delivery(store=store, images=(image,), roots=roots, connect=_no_network, **settings)


def _no_network() -> Any:
    raise AssertionError("no registry is needed")


def flatten(layers: list[bytes]) -> dict[str, Any]:
    """What a stack of tar layers comes to, by the words of the image specification: an independent, slow reading."""
    tree: dict[str, Any] = {}
    for data in layers:
        with tarfile.open(fileobj=io.BytesIO(data)) as members:
            listed = members.getmembers()
            for member in listed:  # whiteouts hide what is below this layer, wherever they stand in it
                folder, _, name = member.name.rpartition("/")
                if name == ".wh..wh..opq":
                    _remove_below(tree, folder)
                elif name.startswith(".wh."):
                    hidden = f"{folder}/{name[4:]}".lstrip("/")
                    tree.pop(hidden, None)
                    _remove_below(tree, hidden)
            for member in listed:
                if not member.name.rpartition("/")[2].startswith(".wh.") and member.name not in ("", "."):
                    _put(tree, members, member)
    return tree


def _put(tree: dict[str, Any], members: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    if not member.isdir():
        _remove_below(tree, member.name)
    if member.islnk():
        tree[member.name] = tree[member.linkname]
        return
    content = members.extractfile(member).read() if member.isfile() else member.linkname  # type: ignore[union-attr]
    xattrs = {key: value for key, value in member.pax_headers.items() if "xattr" in key}
    tree[member.name] = (
        member.type,
        member.mode,
        member.uid,
        member.gid,
        int(member.mtime),
        content,
        tuple(xattrs.items()),
    )


def _remove_below(tree: dict[str, Any], path: str) -> None:
    for name in [name for name in tree if name.startswith(f"{path}/")]:
        del tree[name]


def read_layout(data: bytes, into: Path) -> Path:
    """Unpack an archive with Python's tarfile."""
    with tarfile.open(fileobj=io.BytesIO(data)) as members:
        members.extraction_filter = getattr(tarfile, "data_filter", None)  # Python has it since 3.11.4
        members.extractall(into)
    return into
