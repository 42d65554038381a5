"""`--output`: what it says, as data."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from builder.errors import Unsupported, UsageError
from builder.filesystem.compression import GZIP, KINDS, Compression
from builder.oci import reference
from builder.oci.reference import DEFAULT_TAG, Reference
from builder.solver.annotations import Annotation, parse_output_annotation

TYPES = ("oci", "docker", "local", "tar", "image", "registry", "cacheonly")

_KEYS = (
    "type", "dest", "name", "push", "tar", "compression", "compression-level", "force-compression",
    "rewrite-timestamp", "oci-mediatypes", "oci-artifact", "annotation.KEY", "push-by-digest", "name-canonical",
    "store", "unpack", "platform-split", "registry.insecure", "mode",
)  # fmt: skip


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """One `--output`. `dest` is a path, or `-` for standard output; `level` None for the format's default;
    `oci_artifact` stores attestations as artifacts, not in the form of images; what is pushed `by_digest` gets no tag.
    What is pushed `insecure` goes to a registry with any certificate, or without HTTPS. `platform_split` makes a
    directory for each platform (None: where there are several), `delete` removes what else is there. The type
    `cacheonly` writes nothing: as in buildx it keeps the default output away.
    """

    type: str
    dest: str = ""
    names: tuple[str, ...] = ()
    push: bool = False
    by_digest: bool = False
    tar: bool = True
    compression: Compression | None = None
    force_compression: bool = False
    rewrite_timestamp: bool = False
    oci_media_types: bool | None = None
    oci_artifact: bool = True
    annotations: tuple[Annotation, ...] = ()
    platform_split: bool | None = None
    insecure: bool = False
    delete: bool = False

    @property
    def holds_image(self) -> bool:
        """Whether an image is made for it, and not only files, or nothing."""
        return self.type not in ("tar", "local", "cacheonly")


def parse_output(text: str) -> Output:
    """Read `type=oci,dest=x.tar`, or a bare path: a directory, and `-` a tar, as in buildx. Raises UsageError."""
    import csv

    try:
        fields = next(csv.reader([text]), [])
    except csv.Error as error:
        raise UsageError(f"invalid --output {text!r}: {error}", remedy="write key=value pairs with commas") from error
    if fields in ([], [""]):
        raise UsageError("--output is empty", remedy="write for example --output type=oci,dest=image.tar")
    if len(fields) == 1 and "=" not in fields[0]:
        return Output(type="tar" if fields[0] == "-" else "local", dest=fields[0])
    values: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals:
            raise UsageError(
                f"invalid --output field {field!r}", remedy="write key=value pairs, for example type=oci,dest=image.tar"
            )
        values[key.strip().lower() if not key.startswith("annotation") else key.strip()] = value
    return _from_values(values, text)


def adjust_outputs(outputs: tuple[Output, ...], *, push: bool = False, load: bool = False) -> tuple[Output, ...]:
    """What `--push` and `--load` make of the outputs: images are pushed, or one more output puts the image into the
    store."""
    if push and any(output.type == "image" for output in outputs):
        replace = msgspec.structs.replace
        outputs = tuple(replace(output, push=True) if output.type == "image" else output for output in outputs)
    elif push:
        outputs = (*outputs, Output(type="image", push=True))
    if load and not any(output.type == "image" for output in outputs):
        outputs = (*outputs, Output(type="image"))
    return outputs


def output_names(output: Output, tags: Sequence[Reference]) -> tuple[list[Reference], list[Reference]]:
    """The names that an output gives the image, and those of them that it pushes: what it states, or else the tags.
    Tags beside what is stated stay here. What is pushed by digest has no tag. Raises InvalidReference, and UsageError
    for a tag there, as BuildKit does."""
    names = [reference.parse(name, default_tag=False) for name in output.names] or list(tags)
    for name in names if output.by_digest else ():
        if name.tag:
            raise UsageError("push-by-digest pushes no tag", place=name.familiar, remedy=f"write {name.familiar_name}")
    pushed = names if output.by_digest else [_tagged(name) for name in names]
    beside = [_tagged(name) for name in tags] if output.names else []
    return [*pushed, *(name for name in beside if name not in pushed)], pushed


def image_names(outputs: tuple[Output, ...], tags: tuple[str, ...]) -> tuple[str, ...]:
    """The names that the image of a build gets: those that outputs state, and the tags. Without an image there are
    none."""
    if not outputs:
        return tags
    images = [output for output in outputs if output.holds_image]
    return tuple(dict.fromkeys(name for output in images for name in (*output.names, *tags)))


def _from_values(values: dict[str, str], text: str) -> Output:
    kind = values.pop("type", "")
    if kind not in TYPES:
        raise UsageError(
            f"unknown output type {kind!r} in --output {text!r}", remedy=f"known types: {', '.join(TYPES)}"
        )
    compression = values.pop("compression", "")
    if compression and compression not in KINDS:
        raise UsageError(f"unsupported compression {compression!r}", remedy=f"supported: {', '.join(KINDS)}")
    level = values.pop("compression-level", "")
    if level and not re.fullmatch(r"-?[0-9]{1,4}", level):
        raise UsageError(f"compression-level={level!r} is not a number")
    annotations = []
    for key in [key for key in values if key.startswith("annotation")]:
        annotation = parse_output_annotation(key, values.pop(key))
        if annotation is None:
            raise UsageError(f"invalid annotation {key!r} in --output {text!r}", remedy="write annotation.KEY=VALUE")
        annotations.append(annotation)
    output = Output(
        type="image" if kind == "registry" else kind,
        dest=values.pop("dest", ""),
        names=tuple(name for name in values.pop("name", "").split(",") if name),
        push=_flag(values, "push", kind == "registry"),
        by_digest=_flag(values, "push-by-digest", False),
        tar=_flag(values, "tar", True),
        compression=Compression(compression or GZIP, int(level) if level else None) if compression or level else None,
        force_compression=_flag(values, "force-compression", False),
        rewrite_timestamp=_flag(values, "rewrite-timestamp", False),
        oci_media_types=_flag(values, "oci-mediatypes", True) if "oci-mediatypes" in values else None,
        oci_artifact=_flag(values, "oci-artifact", True),
        annotations=tuple(annotations),
        insecure=_flag(values, "registry.insecure", False),
        delete=_deletes(values, kind),
        platform_split=_flag(values, "platform-split", True) if "platform-split" in values else None,
    )
    for key in ("name-canonical", "unpack"):  # an image is found by NAME@DIGEST anyway, and unpacked when it is used
        _flag(values, key, True)
    if not _flag(values, "store", True):
        raise Unsupported("store=false is not supported: what is pushed is in the store too", remedy="leave it out")
    if values:
        from difflib import get_close_matches

        unknown = next(iter(values))
        close = get_close_matches(unknown, _KEYS, 1)
        raise UsageError(
            f"unknown option {unknown!r} in --output {text!r}",
            remedy=f"did you mean {close[0]}?" if close else f"the options are {', '.join(_KEYS)}",
        )
    if output.type == "local" or (output.type in ("oci", "docker") and not output.tar):
        _check_directory(output)
    elif not output.dest and output.type in ("oci", "tar"):
        return msgspec.structs.replace(output, dest="-")
    elif not output.dest and output.type == "docker":  # which buildx loads: its daemon's store is ours
        return msgspec.structs.replace(output, type="image")
    return output


def _deletes(values: dict[str, str], kind: str) -> bool:
    mode = values.pop("mode", "").strip().lower()
    if mode not in ("", "copy", "delete"):
        raise UsageError(f"unknown mode {mode!r} of an output", remedy="the modes are copy and delete")
    if mode == "delete" and kind != "local":
        raise UsageError(f"mode=delete is of no use for type={kind}", remedy="leave it out, or write type=local")
    return mode == "delete"


def _check_directory(output: Output) -> None:
    """Raises UsageError for a directory that is none: as in buildx it has no other place than `dest`."""
    what = "type=local" if output.type == "local" else f"type={output.type},tar=false"
    if not output.dest:
        raise UsageError(f"--output {what} needs a dest", remedy="add dest=DIRECTORY")
    if output.dest == "-":
        raise UsageError(
            f"--output {what} cannot go to standard output", remedy="write dest=./- for a directory - here"
        )


def _tagged(name: Reference) -> Reference:
    return name if name.tag or name.digest else msgspec.structs.replace(name, tag=DEFAULT_TAG)


def _flag(values: dict[str, str], key: str, default: bool) -> bool:
    text = values.pop(key, None)
    if text is None:
        return default
    if text.lower() in ("true", "1", ""):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise UsageError(f"{key}={text!r} is neither true nor false")
