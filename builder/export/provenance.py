"""How an image was made, as SLSA provenance (https://slsa.dev/spec/v1.1/provenance, and v0.2).

The layout is BuildKit's, which policies and scanners know: its docs/attestations/slsa-definitions.md is the build type.
What is secret in it is left out (`withheld`), and then its request is said to be incomplete.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from builder.context.source import Origin
from builder.errors import StepFailed
from builder.export.attestations import Predicate, Provenance
from builder.export.provenance_steps import Steps
from builder.export.purl import image_purl
from builder.export.withheld import Variables, Withheld, redacted
from builder.oci import reference
from builder.oci.platform import host_platform
from builder.oci.spec import Descriptor
from builder.plan.steps import (
    MAIN_CONTEXT,
    CopyGit,
    CopyNode,
    CopyUrl,
    ImageKey,
    ImageNode,
    Plan,
    RunNode,
    SecretMount,
    SshMount,
)
from builder.solver.environment import Materials
from builder.solver.solve import Root

BUILD_TYPE = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
BUILD_TYPE_02 = "https://mobyproject.org/buildkit@v1"
PREDICATE = "https://slsa.dev/provenance/v1"
PREDICATE_02 = "https://slsa.dev/provenance/v0.2"

_PRIVATE = ("build-arg:", "label:")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a build was, for its provenance.

    `request` are the options as a frontend of BuildKit gets them (`build-arg:NAME`, `target`, …); `text` is the
    Dockerfile's content and `dockerfile` its path in the main context if it was `fetched` with that, else its name;
    `origins` are the contexts that were fetched, of the `remote` ones. `bases` gives the digest that the name of an
    image stands for; `started` is in seconds since the epoch, `epoch` SOURCE_DATE_EPOCH, which then is the only time
    that is told. `keys` are the cache keys of the steps.
    """

    plan: Plan
    roots: Mapping[int, Root]
    bases: Mapping[ImageKey, str]
    materials: Materials
    request: Mapping[str, str]
    dockerfile: str
    fetched: bool
    text: bytes
    remote: frozenset[str]
    origins: Mapping[str, Origin]
    started: float
    invocation: str
    epoch: int | None = None
    keys: Mapping[int, str] = {}


def provenance(record: Record, position: int, wanted: Provenance, layers: Sequence[Descriptor]) -> Predicate:
    """The provenance of the image at a `position` of the plan, whose manifest has these `layers`.

    Raises StepFailed if complete materials were asked for and are not to be had.
    """
    made = _Writer(record, position, wanted, layers).predicate()
    if wanted.version == "v1":
        return Predicate(PREDICATE, made, wanted.filename)
    return Predicate(PREDICATE_02, _to_version_02(made), wanted.filename)


class _Writer:
    def __init__(self, record: Record, position: int, wanted: Provenance, layers: Sequence[Descriptor]) -> None:
        self._record = record
        self._wanted = wanted
        self._full = wanted.mode == "max"
        self._withheld = Withheld()
        self._layers = layers
        self._target = record.plan.images[position].node
        self._nodes = {number: record.plan.nodes[number] for number in record.plan.needed([self._target])}
        runs = [node for node in self._nodes.values() if isinstance(node, RunNode)]
        self._mounts = [mount for run in runs for mount in run.mounts]
        self._contexts = list(dict.fromkeys(name for node in self._nodes.values() for name in node.contexts()))
        self._locals = [name or "context" for name in self._contexts if name not in record.remote]
        self._locals += [] if record.fetched else ["dockerfile"]
        self._network = any(run.network != "none" for run in runs)

    def predicate(self) -> dict[str, Any]:
        record, wanted = self._record, self._wanted
        incomplete = bool(self._locals)
        if wanted.complete and incomplete:
            raise StepFailed(
                f"the provenance's materials are incomplete: local sources ({', '.join(self._locals)}) have no digest",
                remedy="build from a git repository, or leave out complete-materials",
            )
        arguments, all_told = self._arguments()
        request: dict[str, Any] = {"frontend": "dockerfile.v0", "args": arguments}
        if self._full:
            request |= {"secrets": self._secrets(), "ssh": self._agents()}
        request["locals"] = [{"name": name} for name in self._locals]
        internal: dict[str, Any] = {"builderPlatform": str(host_platform())}
        metadata: dict[str, Any] = {"buildkit_metadata": {}}
        if self._full:
            steps = Steps(
                self._nodes,
                self._target,
                bases=record.bases,
                origins=record.origins,
                commits=record.materials.commits,
                keys=record.keys,
                withheld=self._withheld,
            )
            internal["buildConfig"] = {"llbDefinition": steps.definition, "digestMapping": steps.keys}
            metadata["buildkit_metadata"] = self._source(steps)
        dependencies = self._dependencies()
        all_told = all_told and not self._withheld.anything
        finished = datetime.now(UTC).timestamp() if record.epoch is None else record.epoch
        if record.epoch is None:  # what differs from build to build has no place in what shall not
            metadata["invocationId"] = record.invocation
        metadata |= {
            "startedOn": _time(record.started if record.epoch is None else record.epoch),
            "finishedOn": _time(finished),
            "buildkit_hermetic": not incomplete and not self._network,
            "buildkit_reproducible": wanted.reproducible,
            "buildkit_completeness": {"request": all_told, "resolvedDependencies": not incomplete},
        }
        return {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"configSource": self._config_source(), "request": request},
                "internalParameters": internal,
                "resolvedDependencies": dependencies,
            },
            "runDetails": {"builder": {"id": wanted.builder_id}, "metadata": metadata},
        }

    def _arguments(self) -> tuple[dict[str, str], bool]:
        """The options, and whether all are told."""
        given = self._record.request
        keys = [key for key in given if self._full or not key.startswith(_PRIVATE)]
        told = {key: self._withheld.value(key.rpartition(":")[2], given[key]) for key in keys}
        return told, len(told) == len(given)

    def _secrets(self) -> list[dict[str, Any]]:
        return _named((mount.secret, mount.required) for mount in self._mounts if isinstance(mount, SecretMount))

    def _agents(self) -> list[dict[str, Any]]:
        return _named((mount.agent, mount.required) for mount in self._mounts if isinstance(mount, SshMount))

    def _config_source(self) -> dict[str, Any]:
        """The Dockerfile, and where it is from: as BuildKit tells it, with the directory of a repository in the URI."""
        source: dict[str, Any] = {"path": self._record.dockerfile}
        origin = self._record.origins.get(MAIN_CONTEXT)
        if origin is not None:
            uri = redacted(origin.uri)
            if origin.subdir:
                uri += f"{'' if '#' in uri else '#'}:{origin.subdir}"
            source |= {"uri": uri, "digest": _digest_set(origin.digest)}
        return source

    def _dependencies(self) -> list[dict[str, Any]]:
        """Images, then repositories, then files, each once."""
        record = self._record
        found: dict[str, str] = {}
        for key in sorted({node.image for node in self._nodes.values() if isinstance(node, ImageNode)}):
            found[_image_uri(key)] = record.bases.get(key, "")
        fetched: dict[str, str] = {}
        variables: dict[str, Variables] = {}
        for name, origin in record.origins.items():
            if name == MAIN_CONTEXT or name in self._contexts:
                fetched[origin.uri] = origin.digest
        for node in self._nodes.values():
            for source in node.sources if isinstance(node, CopyNode) else ():
                if isinstance(source, CopyGit) and source.url in record.materials.commits:
                    uri, commit = record.materials.commits[source.url]
                    found[uri], variables[uri] = commit_digest(commit), node.variables
                elif isinstance(source, CopyUrl) and source.url in record.materials.urls:
                    fetched[source.url], variables[source.url] = record.materials.urls[source.url], node.variables
        return [
            {
                "uri": self._withheld.text(uri, variables.get(uri, ())),
                **({"digest": _digest_set(digest)} if digest else {}),
            }
            for uri, digest in (found | fetched).items()
        ]

    def _source(self, steps: Steps) -> dict[str, Any]:
        """The Dockerfile, the lines of each step, and the layers that steps ended with."""
        info = {
            "filename": self._record.dockerfile,
            "language": "Dockerfile",
            "data": base64.b64encode(self._withheld.dockerfile(self._record.text)).decode(),
        }
        source = {"source": {"infos": [info], "locations": steps.locations}}
        diff_ids = self._record.roots[self._target].layers
        if len(diff_ids) != len(self._layers):
            return source  # squashed: no step has a layer of its own
        layers = {}
        for number, step in steps.numbers.items():
            chain = self._record.roots[number].layers if number in self._record.roots else ()
            if chain and chain == diff_ids[: len(chain)]:
                layers[f"{step}:0"] = [
                    [
                        {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}
                        for layer in self._layers[: len(chain)]
                    ]
                ]
        return {**source, "layers": layers}


def commit_digest(commit: str) -> str:
    return f"sha256:{commit}" if len(commit) == 64 else f"sha1:{commit}"


def _named(mounts: Iterable[tuple[str, bool]]) -> list[dict[str, Any]]:
    """Secrets or agents by name; one that some step cannot do without is not optional."""
    required: dict[str, bool] = {}
    for name, needed in mounts:
        required[name] = required.get(name, False) or needed
    return [{"id": name, **({} if needed else {"optional": True})} for name, needed in required.items()]


def _image_uri(key: ImageKey) -> str:
    if not key.layout:
        return image_purl(reference.parse(key.reference), key.platform)
    name = re.sub(r"[^a-z0-9]+", "-", key.layout.rstrip("/").rpartition("/")[2].lower()).strip("-") or "layout"
    at = "@" if key.reference.startswith("sha256:") else ":"
    return image_purl(reference.parse(f"{name}{at}{key.reference}"), key.platform, kind="oci")


def _digest_set(digest: str) -> dict[str, str]:
    algorithm, _, value = digest.partition(":")
    return {algorithm: value}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _to_version_02(predicate: dict[str, Any]) -> dict[str, Any]:
    """The same in SLSA 0.2's words, as BuildKit's ConvertToSLSA02 does it."""
    definition, run = predicate["buildDefinition"], predicate["runDetails"]
    external, internal, metadata = (
        definition["externalParameters"],
        definition["internalParameters"],
        run["metadata"],
    )
    source = dict(external["configSource"])
    if "path" in source:
        source["entryPoint"] = source.pop("path")
    complete = metadata["buildkit_completeness"]
    converted: dict[str, Any] = {
        "builder": run["builder"],
        "buildType": BUILD_TYPE_02,
        "materials": definition["resolvedDependencies"],
        "invocation": {
            "configSource": source,
            "parameters": external["request"],
            "environment": {"platform": internal["builderPlatform"]},
        },
        "metadata": {
            **({"buildInvocationID": metadata["invocationId"]} if "invocationId" in metadata else {}),
            "buildStartedOn": metadata["startedOn"],
            "buildFinishedOn": metadata["finishedOn"],
            "completeness": {
                "parameters": complete["request"],
                "environment": True,
                "materials": complete["resolvedDependencies"],
            },
            "reproducible": metadata["buildkit_reproducible"],
            "https://mobyproject.org/buildkit@v1#metadata": metadata["buildkit_metadata"],
            "https://mobyproject.org/buildkit@v1#hermetic": metadata["buildkit_hermetic"],
        },
    }
    if "buildConfig" in internal:
        converted["buildConfig"] = internal["buildConfig"]
    return converted
