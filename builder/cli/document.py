"""An image as Docker's `inspect` shows it (the image object of the Engine API 1.50, with what older ones add)."""

from __future__ import annotations

from typing import Any

import msgspec

from builder.cli.template_values import Duration, Map, Record, Slice
from builder.oci.reference import Reference
from builder.oci.spec import ContainerConfig, Descriptor, Healthcheck, without_names
from builder.store.describe import PlatformImage, Summary

_NEVER = "0001-01-01T00:00:00Z"
_OPTIONAL = frozenset({"Variant", "OsVersion", "DockerVersion", "Author", "Manifests"})
_DESCRIPTOR_OPTIONAL = frozenset({"urls", "annotations", "platform", "artifactType"})


def image_document(summary: Summary, image: PlatformImage, names: list[Reference], *, chosen: bool) -> Record:
    """The document of one manifest of an image; `chosen` if its platform was asked for (then the ID is its own)."""
    config = image.config
    assert config is not None
    digest = image.descriptor.digest if chosen else summary.descriptor.digest
    history = config.history or []
    repositories = dict.fromkeys(name.familiar_name for name in names)
    document = {
        "Id": image.image_id if chosen else summary.image_id,
        "RepoTags": [name.familiar for name in names if name.tag],
        "RepoDigests": [f"{name}@{digest}" for name in repositories],
        "Parent": "",
        "Comment": history[-1].comment if history else "",
        "Created": config.created or _NEVER,
        "DockerVersion": "",
        "Author": config.author,
        "Config": _container(config.config),
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "OsVersion": config.os_version,
        "Size": image.size,
        "RootFS": Record(Type="layers", Layers=list(config.rootfs.diff_ids or ())),
        "Metadata": Record(LastTagTime=_NEVER),
        "Descriptor": _descriptor(image.descriptor if chosen else summary.descriptor),
        "Manifests": [_descriptor(entry.descriptor) for entry in summary.platforms] if summary.is_index else [],
    }
    return Record.of(document, _OPTIONAL)


def _container(config: ContainerConfig) -> Record:
    """All fields may be left out when they are empty; a template finds them nevertheless."""
    fields = {
        "User": config.user,
        "ExposedPorts": _set(config.exposed_ports),
        "Env": Slice.of(config.env),
        "Entrypoint": Slice.of(config.entrypoint),
        "Cmd": Slice.of(config.cmd),
        "Healthcheck": _healthcheck(config.healthcheck),
        "ArgsEscaped": config.args_escaped,
        "Volumes": _set(config.volumes),
        "WorkingDir": config.working_dir,
        "Labels": Map.of(config.labels),
        "OnBuild": Slice.of(config.on_build),
        "StopSignal": config.stop_signal,
        "Shell": Slice.of(config.shell),
    }
    return Record.of(fields, frozenset(fields))


def _set(members: dict[str, dict[str, Any]] | None) -> Map:
    """A set as Go has it: a map to structures without fields."""
    return Map.of(members and {name: Record(value) for name, value in members.items()}, zero=Record())


def _healthcheck(check: Healthcheck | None) -> Record | None:
    if check is None:
        return None
    fields = {
        "Test": check.test,
        "Interval": Duration(check.interval),
        "Timeout": Duration(check.timeout),
        "StartPeriod": Duration(check.start_period),
        "StartInterval": Duration(check.start_interval),
        "Retries": check.retries,
    }
    return Record.of(fields, frozenset(fields))


def _descriptor(descriptor: Descriptor) -> Record:
    data: dict[str, Any] = msgspec.to_builtins(without_names(descriptor))
    fields = {key: data.get(key) for key in ("mediaType", "digest", "size", *sorted(_DESCRIPTOR_OPTIONAL))}
    return Record.of(fields, _DESCRIPTOR_OPTIONAL)
