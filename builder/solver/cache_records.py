"""The form in which steps travel from one store to another: a document of records, and layers as blobs.

A cache is an OCI image manifest whose configuration is the document below, of a media type of our own, and whose layers
are first those of steps, then cache mounts (each a zstd tar). An inline cache is the same document as an annotation on
an image's manifest; its layers are the image's own.

    {"version": 1,
     "layers": ["sha256:…"],                      diff IDs of the manifest's first layers, in their order
     "records": [{"diff_id": "sha256:…",          what a step made; its layer may not be among the above
                  "created": 1700000000.5,        when, in seconds since the epoch
                  "place": "16 digits",           stands for platform, stage and instruction; may be missing
                  "recipe": {…}}                  what its key is the digest of; or, where that is left out:
                 {…, "key": "64 digits", "free": true}],
     "mounts": [{"id": "npm", "name": "32 digits"}],
     "steps": [{…}]}                              the build's steps (`BuiltStep`), to say why others miss the cache

A record whose layer does not travel still says what a step gives, by which the steps after it are found; only where
somebody needs its bytes is it made again. Nothing in a document is believed before `decode_cache` has looked at it.
Its keys are computed from the recipes; what a recipe *gives* nobody can check: that is what whoever names a cache
trusts it for.
"""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
import hashlib
import math
from typing import Any

import msgspec

from builder.errors import StoreError
from builder.oci.digests import is_hex, is_sha256
from builder.oci.spec import NOT_JSON
from builder.solver.keys import key_of_encoded
from builder.store.builds import BuiltStep
from builder.store.records import StepRecord

VERSION = 1
CONFIG = "application/vnd.builder.cache.config.v1+json"
ANNOTATION = "vnd.builder.cache.v1"
LARGEST_DOCUMENT = 8 << 20  # bytes
LARGEST_RECIPE = 64 << 10  # bytes; a copy of many files has more, and travels by its key alone

_LATEST = 253_402_300_800.0  # the year 10000, which no timestamp of RFC 3339 can name
_LONGEST_TEXT = 4096
_KEY, _PLACE, _MOUNT_NAME = 64, 16, 32  # hexadecimal digits


class MountRecord(msgspec.Struct, frozen=True):
    """A cache mount: the id that `RUN --mount` gives, and its directory's name, which covers what it starts from."""

    id: str
    name: str


class Document(msgspec.Struct, frozen=True):
    """What a cache says, looked at: `free` are the keys of the records that name no parent, and so serve over others
    too. A record without a recipe has b"" for it; its lineage is a `place`, or ''."""

    layers: tuple[str, ...]
    records: tuple[StepRecord, ...]
    free: frozenset[str] = frozenset()
    mounts: tuple[MountRecord, ...] = ()
    steps: tuple[BuiltStep, ...] = ()


class _Record(msgspec.Struct, frozen=True):
    diff_id: str
    created: float
    place: str = ""
    recipe: msgspec.Raw = msgspec.Raw()
    key: str = ""
    free: bool = False


class _Wire(msgspec.Struct, frozen=True):
    records: list[_Record]
    layers: list[str] = []
    mounts: list[MountRecord] = []
    steps: list[BuiltStep] = []


class _Version(msgspec.Struct, frozen=True):
    version: int


class _Recipe(msgspec.Struct, frozen=True):
    parent: msgspec.Raw = msgspec.Raw()


def names_no_parent(recipe: bytes) -> bool:
    """Whether what a recipe describes may lie over any parent: it names content, and facts that it asked."""
    try:
        return not bytes(msgspec.json.decode(recipe, type=_Recipe).parent)
    except msgspec.MsgspecError:
        return False


def encode_cache(document: Document, *, recipes: bool = True) -> bytes:
    """Write a document, in one order for the same records. Without `recipes` every record has its key alone; else those
    whose recipe is large, and more of them where the whole would become too large. Raises StoreError if it still is."""
    largest = LARGEST_RECIPE if recipes else -1
    while True:
        data = _encode(document, largest)
        if len(data) <= LARGEST_DOCUMENT:
            return data
        if largest < 0:
            raise StoreError(f"the cache's {len(document.records)} records are more than {LARGEST_DOCUMENT >> 20} MiB")
        largest = largest // 4 if largest > 1 << 10 else -1


def _encode(document: Document, largest: int) -> bytes:
    records: list[dict[str, Any]] = []
    for record in sorted(document.records, key=lambda record: record.key):
        told: dict[str, Any] = {"diff_id": record.diff_id, "created": record.created}
        if record.lineage:
            told["place"] = record.lineage
        if record.recipe and len(record.recipe) <= largest:
            told["recipe"] = msgspec.Raw(record.recipe)
        else:
            told["key"] = record.key
            if record.key in document.free:
                told["free"] = True
        records.append(told)
    whole: dict[str, Any] = {"version": VERSION, "records": records}
    if document.layers:
        whole["layers"] = list(document.layers)
    if document.mounts:
        whole["mounts"] = list(document.mounts)
    if document.steps and largest >= 0:
        whole["steps"] = list(document.steps)
    return msgspec.json.encode(whole)


def decode_cache(data: bytes, place: str) -> Document:
    """Read a document that may come from anyone. Raises StoreError if anything in it cannot be."""
    if len(data) > LARGEST_DOCUMENT:
        raise _refused(place, f"is larger than {LARGEST_DOCUMENT >> 20} MiB")
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version != VERSION:
            raise _refused(
                place,
                f"is of version {version}, and this builder reads version {VERSION}",
                "write it again with the builder that is to read it",
            )
        wire = msgspec.json.decode(data, type=_Wire)
    except NOT_JSON as error:
        raise _refused(place, f"cannot be read: {error}") from error
    if not all(is_sha256(diff_id) for diff_id in wire.layers):
        raise _refused(place, "lists a layer that is no diff ID")
    if not all(_is_mount(mount) for mount in wire.mounts):
        raise _refused(place, "lists a cache mount without a proper name")
    records = []
    free = set()
    for record in wire.records:
        step = _step(record)
        if step is None:
            raise _refused(place, f"has a record that makes no sense ({record.key or record.diff_id:.80})")
        records.append(step)
        if record.free or (step.recipe and names_no_parent(step.recipe)):
            free.add(step.key)
    return Document(tuple(wire.layers), tuple(records), frozenset(free), tuple(wire.mounts), tuple(wire.steps))


def _step(record: _Record) -> StepRecord | None:
    recipe = bytes(record.recipe)
    if bool(recipe) == bool(record.key) or (record.key and not is_hex(record.key, _KEY)):
        return None
    if recipe and (not recipe.startswith(b"{") or len(recipe) > LARGEST_RECIPE):
        return None
    if not is_sha256(record.diff_id) or (record.place and not is_hex(record.place, _PLACE)):
        return None
    if not math.isfinite(record.created) or not 0 <= record.created < _LATEST:
        return None
    key = record.key or key_of_encoded(recipe)
    return StepRecord(key, record.diff_id, recipe, record.place, record.created)


def _is_mount(mount: MountRecord) -> bool:
    return is_hex(mount.name, _MOUNT_NAME) and is_text(mount.id)


def is_text(text: str) -> bool:
    """Whether the id of a cache mount can travel."""
    return len(text) <= _LONGEST_TEXT and (text.isprintable() or not text)


def _refused(place: str, why: str, remedy: str | None = None) -> StoreError:
    return StoreError(f"its cache {why}", place=place, remedy=remedy)


def place(text: str, lineage: str) -> str:
    """What stands for a place in a Dockerfile on every machine: 16 digits, made of a step's place without this build's
    `lineage`, which are paths of this machine. Digits that came from elsewhere stay; '' is any other Dockerfile's."""
    if is_hex(text, _PLACE):
        return text
    prefix = f"{lineage}|"
    if not text.startswith(prefix):
        return ""
    return hashlib.sha256(text[len(prefix) :].encode("utf-8", "surrogateescape")).hexdigest()[:16]
