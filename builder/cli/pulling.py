"""What `pull`, `run` and `shell` share: an image fetched from a registry, and what is said of it, as by Docker."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from builder.api.pulling import Pulled, pull
from builder.cli.transfers import PULLED, TransferView, open_session
from builder.errors import RegistryError, StoreError, Unsupported, UsageError
from builder.oci import reference as references
from builder.store.describe import Describer
from builder.store.images import NoSuchImage, id_digits

if TYPE_CHECKING:
    from builder.api.running import RunOptions
    from builder.oci.reference import Reference
    from builder.oci.spec import Platform
    from builder.registry.transport import Session
    from builder.store.store import Store


def pull_image(
    store: Store, session: Session, reference: Reference, platform: Platform | None, view: TransferView
) -> Pulled:
    """Pull one image, with lines about where it comes from and what it is. Raises what `pull` raises."""
    view.line(f"{reference.digest or reference.tag}: Pulling from {reference.path}")
    pulled = pull(store, session, reference, platform=platform, report=view)
    view.line(f"Digest: {pulled.descriptor.digest}")
    return pulled


def say_status(view: TransferView, name: str, *, changed: bool) -> None:
    """The last line about what was pulled."""
    view.line(f"Status: {'Downloaded newer image for' if changed else 'Image is up to date for'} {name}")


def pull_to_run(store: Store, options: RunOptions, *, quiet: bool, missing: StoreError | None = None) -> RunOptions:
    """Pull the image that is to be run. Returns the options that run what came, which may be for another platform that
    the wanted one runs as well.

    `missing` is why it cannot be run as it is; without it the registry is asked all the same. It is raised for what may
    be an image ID, which are never pulled (`--pull=always` then is a UsageError, as in podman). All lines go to
    standard error, as with `docker run`: standard output is the command's. Raises BuilderError.
    """
    if id_digits(options.image) and store.images.named(options.image) is None:
        raise missing or UsageError(
            "this may be an image ID, and no registry knows those",
            place=options.image,
            remedy="write the image's name with its tag, or leave out --pull=always",
        )
    reference = references.parse(options.image)
    with TransferView(PULLED, quiet=quiet, stream=sys.stderr) as view, open_session(report=view) as session:
        if missing is not None:
            variant = "" if isinstance(missing, NoSuchImage) or not options.platform else f" for {options.platform}"
            view.line(f"Unable to find image '{reference.familiar}'{variant} locally")
        try:
            pulled = pull_image(store, session, reference, options.platform, view)
        except (RegistryError, Unsupported) as error:
            _explain(error, reference, _way_out(store, options, missing))
            raise
        say_status(view, reference.familiar, changed=pulled.changed)
    return msgspec.structs.replace(options, platform=pulled.platform)


def _explain(error: RegistryError | Unsupported, reference: Reference, way_out: str) -> None:
    """Have an error of the registry say which image it is about, and what else may help."""
    if error.place is None and reference.familiar not in error.cause:
        error.place = reference.familiar
    if way_out:
        error.remedy = f"{error.remedy}; {way_out}" if error.remedy else way_out


def _way_out(store: Store, options: RunOptions, missing: StoreError | None) -> str:
    if isinstance(missing, NoSuchImage) and missing.meant:
        return f"did you mean {missing.meant}?"
    if missing is None:
        with suppress(StoreError):
            Describer(store).choose(store.images.find(options.image), options.platform)
            return "the image that is here runs without --pull=always"
    return ""
