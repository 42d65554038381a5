"""An image from a registry into the store: all of it verified, fetched once however many ask, the name changed last."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import BinaryIO

import msgspec

from builder.errors import Interrupted, NotFoundError, RegistryError, StoreError
from builder.oci.platform import host_platform
from builder.oci.reference import Reference
from builder.oci.spec import Descriptor, Platform, paired_layers
from builder.progress import Reporter, Transfer, Warned, ignore
from builder.registry.blobs import fetch_blob
from builder.registry.failures import Transient
from builder.registry.platforms import matches
from builder.registry.pull import Keep, Resolved, resolve
from builder.registry.transport import Session
from builder.store.collect import collect
from builder.store.records import LayerRecord
from builder.store.store import Store

JOBS = 4  # downloads at once


class Pulled(msgspec.Struct, frozen=True):
    """What a pull did: the name under which the image is kept, the manifest or index that it stands for (of an index
    only the chosen platform's image is fetched), the platform that this image is for, and whether anything was new."""

    reference: Reference
    descriptor: Descriptor
    platform: Platform
    changed: bool


def pull(
    store: Store,
    session: Session,
    reference: Reference,
    *,
    platform: Platform | None = None,
    report: Reporter = ignore,
) -> Pulled:
    """Fetch an image for a platform (None: this machine's) and give it its name; one with a digest keeps that.

    What broke off for the network's sake is gone on with by the next call; after any other failure nothing is left
    behind. Raises NotFoundError (also where the image is for another platform than the one asked for), RegistryError,
    StoreError, Unsupported.
    """
    try:
        with store.lease():
            return _Pull(store, session, reference, report).run(platform)
    except (Transient, Interrupted, KeyboardInterrupt):
        raise
    except BaseException:
        with suppress(StoreError):  # what it cannot remove, the next one will; the first error is what counts
            collect(store)
        raise


class _Pull:
    def __init__(self, store: Store, session: Session, reference: Reference, report: Reporter) -> None:
        self._store = store
        self._session = session
        # A digest names an image for ever; the tag beside it is only a comment.
        self._name = msgspec.structs.replace(reference, tag=None) if reference.digest else reference
        self._report = report
        self._fetched = False

    def run(self, platform: Platform | None) -> Pulled:
        store, name = self._store, self._name
        image = resolve(self._session, name, platform, keep=self._keep())
        self._check(image, platform)
        store.layers.fetch = self._fetch
        self._fetch_layers(image)
        for data in (image.config_data, image.manifest_data, image.data):
            store.layout.put(data)
        before = store.images.get(name)
        changed = self._fetched or before is None or before.descriptor.digest != image.descriptor.digest
        if changed:
            store.images.tag(image.descriptor, [name])
        return Pulled(name, image.descriptor, image.config.platform(), changed)

    def _check(self, image: Resolved, wanted: Platform | None) -> None:
        """Of an image that is no index only the configuration says for which platform it is."""
        found = image.config.platform()
        if wanted is not None and not matches(found, wanted):
            raise NotFoundError(
                f"{self._name.familiar} is an image for {found}, not for {wanted}",
                remedy="pull it without --platform, or another image",
            )
        if wanted is None and not matches(found, host_platform()):
            self._report(Warned(f"the image is for {found}, and this machine is {host_platform()}"))
        paired_layers(image.manifest, image.config, self._name.familiar)

    def _keep(self) -> Keep:
        """Documents come from the store if it has them; of two processes that want one, one fetches it."""
        layout = self._store.layout

        def keep(descriptor: Descriptor, fetch: Callable[[], bytes]) -> bytes:
            digest = descriptor.digest
            if layout.has(digest):
                return layout.read(digest)
            with self._store.lock(f"fetch-{digest.partition(':')[2]}"):
                if layout.has(digest):
                    return layout.read(digest)
                data = fetch()
                layout.put(data)
                self._fetched = True
                return data

        return keep

    def _fetch_layers(self, image: Resolved) -> None:
        """All layers at once, the largest first, so that the last to end is a small one."""
        records = {}
        for diff_id, layer in zip(image.config.rootfs.diff_ids or (), image.layers, strict=True):
            self._store.layers.know(diff_id, layer, str(self._name))
            records[layer.digest] = LayerRecord(diff_id, layer.digest, layer.media_type, layer.size, str(self._name))
        if not records:
            return
        pool = ThreadPoolExecutor(min(JOBS, len(records)), "pull")
        futures: list[Future[None]] = []
        try:
            for record in sorted(records.values(), key=lambda record: -record.size):
                futures.append(pool.submit(self._fetch_layer, record))
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException as error:
            self._session.close()  # ends the other transfers; what they have is kept for the next call
            # An interrupt does not wait for another process that fetches the same layer.
            pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
            raise
        pool.shutdown()

    def _fetch_layer(self, record: LayerRecord) -> None:
        fetched = self._store.layers.fetch_form(record)
        size = os.path.getsize(self._store.layout.blob_path(record.digest))
        if size != record.size:
            raise RegistryError(
                f"the manifest of {self._name.familiar} is wrong: it says that {record.digest}, which is here,"
                f" has {record.size} bytes instead of {size}"
            )
        self._fetched = self._fetched or fetched
        self._report(Transfer(_label(record.digest), record.size, record.size, "fetched" if fetched else "present"))

    def _fetch(self, origin: str, descriptor: Descriptor, file: BinaryIO) -> None:
        def progress(done: int, total: int) -> None:
            if done < total:  # the end is told when the blob is verified and stored
                self._report(Transfer(_label(descriptor.digest), done, total))

        fetch_blob(self._session, self._name, descriptor, file, progress, resume=True)


def _label(digest: str) -> str:
    return f"pulling {digest[:19]}"
