"""Makes the attestations of a build's images, for each of its outputs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import msgspec

from builder.export.attestations import Attestations, Predicate, attestation_manifest, image_subjects, statement
from builder.export.installed import take_inventory
from builder.export.output import Output
from builder.export.provenance import Record, provenance
from builder.export.sbom import FILE, PREDICATE_TYPE, spdx_document
from builder.filesystem import kinds
from builder.filesystem.tree import FileTree
from builder.oci.reference import Reference
from builder.oci.spec import Descriptor, Manifest
from builder.plan.steps import PlannedImage
from builder.progress import Reporter, Warned
from builder.solver.commit import Attest
from builder.solver.roots import EmptyTree
from builder.solver.solve import Root
from builder.store.store import Store

_PIECE = 1 << 20


class Said(msgspec.Struct, frozen=True):
    """What is said beside an image: images of which the same is said in the same way are the same."""

    wanted: Attestations
    artifact: bool
    names: tuple[Reference, ...]


class Attester:
    """Speaks of the images of one build, which `record` tells about. Their files are looked at once."""

    def __init__(self, store: Store, attestations: Attestations, record: Record, report: Reporter) -> None:
        self._store = store
        self._attestations = attestations
        self._record = record
        self._report = report
        self._documents: dict[tuple[tuple[str, ...], str], Predicate] = {}

    def choose(self, output: Output, names: Sequence[Reference]) -> Said | None:
        """What is said of the images for an output under these names; None if nothing goes with it."""
        wanted = self._attestations.for_output(output)
        return Said(wanted, output.oci_artifact, tuple(names)) if wanted else None

    def writer(self, said: Said, images: Sequence[PlannedImage], roots: Mapping[int, Root]) -> Attest:
        """What `commit` is to call for each image."""

        def write(position: int, descriptor: Descriptor, manifest: Manifest) -> Descriptor:
            image = images[position]
            name = str(said.names[0]) if said.names else "image"
            subjects = image_subjects(said.names, image.platform, descriptor.digest)
            made = self._predicates(said.wanted, position, roots[image.node].layers, name, manifest.layers)
            statements = [statement(predicate, subjects) for predicate in made]
            return attestation_manifest(self._store, descriptor, statements, artifact=said.artifact)

        return write

    def files(
        self, output: Output, image: PlannedImage, position: int, roots: Mapping[int, Root], name: str
    ) -> dict[str, bytes]:
        """The statements about an image's files as files of their own, by name."""
        wanted = self._attestations.for_output(output)
        if not wanted:
            return {}
        layers = roots[image.node].layers
        with self._tree(layers) as tree:
            subjects = _files(tree)
        return {
            predicate.filename: msgspec.json.format(msgspec.json.encode(statement(predicate, subjects)), indent=2)
            for predicate in self._predicates(wanted, position, layers, name, ())
        }

    def _predicates(
        self, wanted: Attestations, position: int, layers: tuple[str, ...], name: str, blobs: Sequence[Descriptor]
    ) -> list[Predicate]:
        made = [self._sbom(layers, name)] if wanted.sbom else []
        if wanted.provenance is not None:
            made.append(provenance(self._record, position, wanted.provenance, blobs))
        return made

    def _sbom(self, layers: tuple[str, ...], name: str) -> Predicate:
        known = self._documents.get((layers, name))
        if known is None:
            with self._tree(layers) as tree:
                inventory = take_inventory(tree)
            for note in inventory.notes:
                self._report(Warned(f"SBOM: {note}"))
            epoch = self._record.epoch
            moment = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(epoch, UTC)
            document = spdx_document(inventory, name, moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
            known = self._documents[layers, name] = Predicate(PREDICATE_TYPE, document, FILE)
        return known

    @contextmanager
    def _tree(self, layers: tuple[str, ...]) -> Iterator[FileTree]:
        if not layers:
            yield EmptyTree()
            return
        with closing(self._store.unpacked.tree(layers)) as tree:
            yield tree


def _files(tree: FileTree) -> list[tuple[str, str]]:
    """Every regular file with the digest of its content."""
    found = []
    waiting = [""]
    while waiting:
        path = waiting.pop()
        prefix = f"{path}/" if path else ""
        for name, info in tree.scan(path):
            if info.kind == kinds.DIRECTORY:
                waiting.append(prefix + name)
            elif info.kind == kinds.FILE:
                shown = (prefix + name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                found.append((shown, _digest(tree, prefix + name)))
    return sorted(found)


def _digest(tree: FileTree, path: str) -> str:
    hasher = hashlib.sha256()
    with os.fdopen(tree.open(path), "rb") as file:
        while piece := file.read(_PIECE):
            hasher.update(piece)
    return f"sha256:{hasher.hexdigest()}"
