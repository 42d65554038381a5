"""The configuration of an image at one of its steps.

An image keeps only that of its last step. The history does not tell it of the others: its lines are for people, and
`ENV A=b C=d` may set one variable or two. The record of the build that made the image does; so it is known exactly for
what was built here as long as that is kept (`record_names.KEPT_BUILDS`), and otherwise not at all.
"""

from __future__ import annotations

from builder.oci.digests import chain_id
from builder.oci.spec import ImageConfig
from builder.store.builds import Build
from builder.store.contents import Selected
from builder.store.store import Store


def configuration_of(store: Store, selected: Selected) -> ImageConfig | None:
    """The configuration of an image or of a step of one, with what was said until the next layer; None where it is not
    known. That of a step has neither history nor layers nor times."""
    if selected.is_whole:
        return selected.image.config
    return _recorded(store, selected.image.image_id, selected.diff_ids)


def _recorded(store: Store, image_id: str, diff_ids: list[str]) -> ImageConfig | None:
    chain = chain_id(diff_ids)
    for build in store.builds.all():
        for image in build.images:
            if image.image_id == image_id:
                found = image.after(chain) or _of_base(store, build, diff_ids)
                if found is not None:
                    return found
    return None


def _of_base(store: Store, build: Build, diff_ids: list[str]) -> ImageConfig | None:
    """That of a step of the image that a build started from, if that was built here, too."""
    chain = chain_id(diff_ids)
    bases = {step.digest for step in build.steps if step.digest and list(step.layers[: len(diff_ids)]) == diff_ids}
    for other in store.builds.all() if bases else ():
        if other.digest in bases:
            for image in other.images:
                found = image.after(chain)
                if found is not None:
                    return found
    return None
