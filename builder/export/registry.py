"""Images to registries: every name of an image is pushed, with what the registry already has left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.oci import reference as references
from builder.oci.reference import Reference
from builder.oci.spec import Descriptor
from builder.progress import Reporter
from builder.registry.push import push
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.registry.transport import Session


def push_image(
    store: Store, session: Session, descriptor: Descriptor, names: Sequence[Reference], report: Reporter
) -> None:
    """Push the image under all `names`, one repository after the other. Raises RegistryError."""
    repositories: dict[tuple[str, str], list[Reference]] = defaultdict(list)
    for name in names:
        repositories[name.domain, name.path].append(name)
    for (domain, _), members in repositories.items():
        push(
            session,
            members[0],
            descriptor,
            store.layout.open,
            tags=[name.tag for name in members[1:] if name.tag],
            origins=_origins(store, descriptor, domain),
            reporter=report,
        )


def _origins(store: Store, descriptor: Descriptor, domain: str) -> dict[str, list[str]]:
    """The repositories of the same registry from which layers can be mounted: where they were pulled from."""
    found: dict[str, list[str]] = {}
    for manifest in store.images.manifests(descriptor):
        for diff_id in store.images.config(manifest).rootfs.diff_ids or ():
            for record in store.database.layers(diff_id):
                if record.origin and not record.origin.startswith("oci-layout:"):
                    origin = references.parse(record.origin)
                    if origin.domain == domain:
                        found.setdefault(record.digest, []).append(origin.path)
    return found
