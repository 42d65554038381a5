"""Option values as people write them, to typed ones: sizes, pairs, secrets, hosts, limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from builder.api.options import BuildOptions, BuildResult, SecretSource
from builder.errors import Unsupported, UsageError
from builder.export.output import Output, parse_output
from builder.oci.platform import parse_platform
from builder.oci.spec import Platform
from builder.solver.annotations import parse_annotation
from builder.solver.limits import Limits

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) *([kmgt]?)(?:i?b)?", re.IGNORECASE)
_ULIMIT = re.compile(r"([a-z]+)=(-1|[0-9]{1,18})(?::(-1|[0-9]{1,18}))?")
_ENTITLEMENTS = ("network.host", "security.insecure")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def build_options(root: str, given: Mapping[str, Any], environ: Mapping[str, str]) -> BuildOptions:
    """The options of a build from the command line's. Raises UsageError."""
    refuse_unsupported(given)
    outputs = tuple(parse_output(text) for text in given["outputs"])
    if given["push"]:
        outputs = _pushing(outputs)
    if given["load"] and not any(output.type == "image" for output in outputs):
        outputs = (*outputs, Output(type="image"))
    if given["squash"] not in ("", "all", "new"):
        raise UsageError(f"--squash={given['squash']!r} is neither all nor new")
    no_cache: frozenset[str] | None = frozenset() if given["no_cache"] else None
    filtered = [name for text in given["no_cache_filter"] for name in text.split(",") if name]
    if filtered and no_cache is None:
        no_cache = frozenset(filtered)
    return BuildOptions(
        context=given["context"],
        dockerfile=given["dockerfile"],
        tags=given["tags"],
        build_args=build_args(given["build_args"], environ),
        contexts=pairs(given["contexts"], "--build-context"),
        target=given["target"],
        platforms=platforms(given["platforms"]),
        labels=pairs(given["labels"], "--label", value_optional=True),
        annotations=tuple(found for text in given["annotations"] for found in parse_annotation(text)),
        no_cache=no_cache,
        pull=given["pull"],
        squash=given["squash"],
        outputs=outputs,
        network=given["network"],
        allow=entitlements(given["allow"]),
        secrets=dict(secret(text, environ) for text in given["secrets"]),
        agents=dict(agent(text, environ) for text in given["agents"]),
        limits=Limits(
            memory=size(given["memory"], "--memory"),
            cpus=given["cpus"],
            shm_size=size(given["shm_size"], "--shm-size"),
            ulimits=tuple(ulimit(text) for text in given["ulimits"]),
            hosts=tuple(host(text) for text in given["hosts"]),
        ),
        jobs=given["jobs"],
        root=root,
        environ=environ,
    )


def refuse_unsupported(given: Mapping[str, Any]) -> None:
    """Raises Unsupported for options of Docker's that are known and not done: none is accepted and ignored."""
    for option in ("provenance", "sbom"):
        if given[option].lower() not in ("", "false", "0"):
            raise Unsupported(
                f"--{option}={given[option]}: attestations are not supported", remedy=f"use --{option}=false"
            )
    if any(not text.endswith("disabled=true") for text in given["attest"]):
        raise Unsupported("--attest: attestations are not supported", remedy="leave it out")
    for option in ("cache_from", "cache_to"):
        if given[option]:
            name = option.replace("_", "-")
            raise Unsupported(f"--{name}: external caches are not supported", remedy="the cache is kept below --root")
    if given["isolation"] != "default":
        raise Unsupported(f"--isolation={given['isolation']} is not supported", remedy="use --isolation=default")
    if not given["rm"]:
        raise Unsupported("--rm=false: there are no intermediate containers to keep", remedy="leave it out")


def _pushing(outputs: tuple[Output, ...]) -> tuple[Output, ...]:
    """`--push`: the image outputs push; without one there is one more."""
    if not any(output.type == "image" for output in outputs):
        return (*outputs, Output(type="image", push=True))
    return tuple(msgspec.structs.replace(output, push=True) if output.type == "image" else output for output in outputs)


def build_args(texts: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` with the value from the environment (left out if it is not there, as with Docker)."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise UsageError(f"invalid --build-arg {text!r}", remedy="write --build-arg NAME=VALUE")
        if equals:
            found[name] = value
        elif name in environ:
            found[name] = environ[name]
    return found


def pairs(texts: Iterable[str], option: str, *, value_optional: bool = False) -> dict[str, str]:
    """`KEY=VALUE` texts as a dictionary."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not (equals or value_optional):
            raise UsageError(f"invalid {option} {text!r}", remedy=f"write {option} NAME=VALUE")
        found[key] = value
    return found


def entitlements(texts: Iterable[str]) -> frozenset[str]:
    """What --allow allows. Raises UsageError for what is not known."""
    found = frozenset(name for text in texts for name in text.split(",") if name)
    for name in sorted(found.difference(_ENTITLEMENTS)):
        raise UsageError(f"unknown entitlement {name!r} in --allow", remedy=f"known: {', '.join(_ENTITLEMENTS)}")
    return found


def platforms(texts: Iterable[str]) -> tuple[Platform, ...]:
    return tuple(dict.fromkeys(parse_platform(name) for text in texts for name in text.split(",") if name))


def size(text: str, option: str) -> int:
    """Bytes from `64m`, `2g`, `1.5GiB`, `4096`; 0 for ''."""
    if not text:
        return 0
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"invalid size {text!r} for {option}", remedy="write a number with k, m or g, for example 512m"
        )
    return int(float(match[1]) * _UNITS[match[2].lower()])


def secret(text: str, environ: Mapping[str, str]) -> tuple[str, SecretSource]:
    """`id=ID[,src=PATH][,env=NAME][,type=file|env]`; with the ID alone the variable of that name, or else the file."""
    fields: dict[str, str] = {}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals or key not in ("id", "src", "source", "env", "type"):
            raise UsageError(
                f"invalid field {field!r} in --secret", remedy="write --secret id=ID,src=PATH or id=ID,env=NAME"
            )
        fields["src" if key == "source" else key] = value
    name = fields.get("id", "")
    kind = fields.get("type", "")
    if not name:
        raise UsageError(f"--secret {text!r} has no id", remedy="write --secret id=ID,src=PATH or id=ID,env=NAME")
    if kind not in ("", "file", "env"):
        raise UsageError(f"unsupported secret type {kind!r}", remedy="the types are file and env")
    if kind == "env" or "env" in fields:
        return name, SecretSource(variable=fields.get("env") or fields.get("src") or name)
    if "src" in fields:
        return name, SecretSource(path=fields["src"])
    return name, SecretSource(variable=name) if name in environ else SecretSource(path=name)


def agent(text: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """`default` or `ID[=SOCKET]`: an agent's socket, by default the one that SSH_AUTH_SOCK names."""
    name, _, path = text.partition("=")
    path = path or environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise UsageError(
            f"--ssh {name}: no agent is running",
            remedy="start one (eval $(ssh-agent)), or give its socket: --ssh ID=PATH",
        )
    return name or "default", path


def host(text: str) -> tuple[str, str]:
    """`NAME:ADDRESS` or `NAME=ADDRESS`."""
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    if not found or not name or not address:
        raise UsageError(f"invalid --add-host {text!r}", remedy="write --add-host NAME:ADDRESS")
    return name, address.strip("[]")


def ulimit(text: str) -> tuple[str, int, int]:
    """`NAME=SOFT[:HARD]`; -1 means unlimited."""
    match = _ULIMIT.fullmatch(text)
    if match is None:
        raise UsageError(f"invalid --ulimit {text!r}", remedy="write --ulimit nofile=1024:2048")
    soft = int(match[2])
    hard = int(match[3]) if match[3] else soft
    if hard != -1 and (soft > hard or soft == -1):
        raise UsageError(f"invalid --ulimit {text!r}: the soft limit is above the hard one")
    return match[1], soft, hard


def metadata(result: BuildResult) -> str:
    """What `--metadata-file` holds, with buildx's keys."""
    document: dict[str, Any] = {}
    if result.image_id:
        document = {
            "containerimage.config.digest": result.image_id,
            "containerimage.descriptor": {"mediaType": result.media_type, "digest": result.digest, "size": result.size},
            "containerimage.digest": result.digest,
        }
    if result.names:
        document["image.name"] = ",".join(result.names)
    return json.dumps(document, indent=2) + "\n"
