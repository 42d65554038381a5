"""Option values as people write them, to typed ones: sizes, pairs, secrets, hosts, limits."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from builder.api.options import Budget, BuildOptions, SecretSource, check_cpus, check_entitlements
from builder.errors import Unsupported, UsageError
from builder.export.output import adjust_outputs, parse_output
from builder.oci.platform import parse_target
from builder.oci.spec import Platform
from builder.solver.annotations import parse_annotation
from builder.solver.limits import Limits

if TYPE_CHECKING:
    from builder.export.attestations import Attestations
    from builder.export.cache_options import CacheSource, CacheTarget

_SIZE = r"(?i)([0-9]{1,15}(?:\.[0-9]{1,15})?) *([kmgt]?)(?:i?b)?"
_MOST = 1 << 63  # what the kernel counts bytes in holds less
_ULIMIT = r"([a-z]+)=(-1|[0-9]{1,18})(?::(-1|[0-9]{1,18}))?"
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def build_options(root: str, given: Mapping[str, Any], environ: Mapping[str, str]) -> BuildOptions:
    """The options of a build from the command line's. Empty outputs, annotations, contexts, secrets and agents (of
    variables that are not set) are none, as in buildx. Raises UsageError."""
    refuse_unsupported(given)
    outputs = adjust_outputs(
        tuple(parse_output(text) for text in given["outputs"] if text), push=given["push"], load=given["load"]
    )
    if sys.stdout.isatty() and any(output.dest == "-" for output in outputs):
        raise UsageError(
            "an archive is not written to a terminal", remedy="write -o type=tar,dest=FILE, or redirect the output"
        )
    if given["squash"] not in ("", "all", "new"):
        raise UsageError(
            f"--squash={given['squash']!r} is neither all nor new", remedy="write --squash, or --squash=new"
        )
    no_cache: frozenset[str] | None = frozenset() if given["no_cache"] else None
    filtered = [name for text in given["no_cache_filter"] for name in text.split(",") if name]
    if filtered and no_cache is None:
        no_cache = frozenset(filtered)
    return BuildOptions(
        context=given["context"],
        dockerfile=given["dockerfile"],
        tags=given["tags"],
        build_args=_with_proxies(given["build_args"], environ),
        contexts=pairs(filter(None, given["contexts"]), "--build-context"),
        target=given["target"],
        platforms=platforms(given["platforms"]),
        labels=pairs(given["labels"], "--label", value_optional=True),
        annotations=tuple(found for text in given["annotations"] if text for found in parse_annotation(text)),
        no_cache=no_cache,
        pull=given["pull"],
        squash=given["squash"],
        outputs=outputs,
        attestations=attestations(given["provenance"], given["sbom"], given["attest"]),
        cache_from=cache_sources(given["cache_from"]),
        cache_to=cache_targets(given["cache_to"]),
        network=given["network"] or "",
        offline=given["offline"],
        rego=policies_count(given["policy"]),
        isolation=given["isolation"],
        allow=entitlements(given["allow"]),
        secrets=dict(secret(text, environ) for text in given["secrets"] if text),
        agents=dict(agent(text, environ) for text in given["agents"] if text),
        limits=Limits(
            memory=size(given["memory"], "--memory"),
            cpus=check_cpus(given["cpus"]),
            shm_size=size(given["shm_size"], "--shm-size"),
            ulimits=tuple(ulimit(text) for text in given["ulimits"]),
            hosts=tuple(hosts(given["hosts"])),
        ),
        jobs=given["jobs"],
        report=given["report"],
        trace=given["trace"],
        budget=budget(given["max_size"], given["max_layer"], given["max_waste"]),
        root=root,
        environ=environ,
    )


def refuse_unsupported(given: Mapping[str, Any]) -> None:
    """Raises Unsupported for options of Docker's that are known and not done: none is accepted and ignored."""
    if given["isolation"] not in ("default", "chroot"):
        raise Unsupported(
            f"--isolation={given['isolation']} is not supported", remedy="use --isolation=default, or chroot"
        )
    if not given["rm"]:
        raise Unsupported("--rm=false: there are no intermediate containers to keep", remedy="leave it out")


def refuse_accounts(given: Mapping[str, Any], options: Iterable[str] = ("report", "trace")) -> None:
    """Raises UsageError if what is no build is to be reported on."""
    for name in options:
        if given[name]:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} tells of a build, and nothing is built", remedy="leave it out")


def attestations(provenance: str, sbom: str, attest: tuple[str, ...]) -> Attestations | None:
    """`--provenance`, `--sbom` and `--attest`, loaded only where they are used. Raises UsageError, Unsupported."""
    if not (provenance or sbom or attest):
        return None
    from builder.export.attestations import parse_attestations

    return parse_attestations(provenance, sbom, attest) or None


def policies_count(texts: tuple[str, ...]) -> bool:
    """Whether policies in Rego count, by `--policy`. Raises UsageError, Unsupported."""
    if not texts:
        return True
    from builder.api import policies

    return policies.policies_count(texts)


def cache_sources(texts: tuple[str, ...]) -> tuple[CacheSource, ...]:
    """`--cache-from`, loaded only where it is used. Raises UsageError."""
    if not texts:
        return ()
    from builder.export.cache_options import parse_cache_sources

    return parse_cache_sources(texts)


def cache_targets(texts: tuple[str, ...]) -> tuple[CacheTarget, ...]:
    """`--cache-to`, loaded only where it is used. Raises UsageError."""
    if not texts:
        return ()
    from builder.export.cache_options import parse_cache_targets

    return parse_cache_targets(texts)


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


def _with_proxies(texts: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Build arguments, and the proxies of Docker's configuration where none are given, as with buildx."""
    from builder.cli.docker_proxies import build_proxies

    found = build_args(texts, environ)
    return build_proxies(found, environ) | found


def pairs(texts: Iterable[str], option: str, *, value_optional: bool = False) -> dict[str, str]:
    """`KEY=VALUE` texts as a dictionary."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not (equals or value_optional):
            raise UsageError(f"invalid {option} {text!r}", remedy=f"write {option} NAME=VALUE")
        found[key] = value
    return found


def _fields(text: str, option: str) -> list[str]:
    """What has commas between; what has some in it stands in quotes, as in CSV."""
    if '"' not in text:
        return text.split(",") if text else []
    import csv

    try:
        return next(csv.reader([text]), [])
    except csv.Error as error:
        raise UsageError(f"invalid {option} {text!r}: {error}", remedy="write fields with commas between") from error


def entitlements(texts: Iterable[str]) -> frozenset[str]:
    """What --allow allows, with commas between. Raises UsageError for what is not known."""
    return check_entitlements(name for text in texts for name in text.split(",") if name)


def platforms(texts: Iterable[str]) -> tuple[Platform, ...]:
    return tuple(dict.fromkeys(parse_target(name) for text in texts for name in text.split(",") if name))


def size(text: str, option: str) -> int:
    """Bytes from `64m`, `2g`, `1.5GiB`, `4096`; 0 for ''."""
    if not text:
        return 0
    match = re.fullmatch(_SIZE, text)
    count = int(float(match[1]) * _UNITS[match[2].lower()]) if match is not None else _MOST
    if count >= _MOST:
        raise UsageError(
            f"invalid size {text!r} for {option}", remedy="write a number with k, m or g, for example 512m"
        )
    return count


def budget(size: str, layer: str, waste: str) -> Budget | None:
    """What --max-size, --max-layer and --max-waste allow; None without any."""
    if not (size or layer or waste):
        return None
    from builder.api.budget import parse_budget

    return parse_budget(size, layer, waste)


def secret(text: str, environ: Mapping[str, str]) -> tuple[str, SecretSource]:
    """`id=ID[,src=PATH][,env=NAME][,type=file|env]`, quoted as in CSV; with the ID alone the variable of that name, or
    else the file."""
    fields: dict[str, str] = {}
    for field in _fields(text, "--secret"):
        key, equals, value = field.partition("=")
        key = key.lower()
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


def agent(text: str, environ: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """`default` or `ID[=SOCKET|KEYFILE[,KEYFILE…]]`: an agent's socket, by default the one that SSH_AUTH_SOCK names, or
    files with private keys."""
    name, _, given = text.partition("=")
    paths = tuple(path for path in (given or environ.get("SSH_AUTH_SOCK", "")).split(",") if path)
    if not paths:
        raise UsageError(
            f"--ssh {name}: no agent is running",
            remedy="start one (eval $(ssh-agent)), or give its socket or a key: --ssh ID=PATH",
        )
    return name or "default", paths


def hosts(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What --add-host gives, with commas between, or in quotes between the addresses of one name, as with docker
    buildx. Raises UsageError."""
    from builder.solver.hosts import host as checked

    for text in texts:
        for field in _fields(text, "--add-host"):
            first, *more = field.split(",")
            name, address = host(first)
            yield name, address
            yield from (checked(name, one) for one in more)


def host(text: str) -> tuple[str, str]:
    """`NAME:ADDRESS` or `NAME=ADDRESS`, as with docker buildx. Raises UsageError."""
    from builder.solver.hosts import host as checked

    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    if not found or not name or not address:
        raise UsageError(f"invalid --add-host {text!r}", remedy="write --add-host NAME:ADDRESS")
    return checked(name, address)


def ulimit(text: str) -> tuple[str, int, int]:
    """`NAME=SOFT[:HARD]`; -1 means unlimited."""
    import resource

    match = re.fullmatch(_ULIMIT, text)
    if match is None:
        raise UsageError(f"invalid --ulimit {text!r}", remedy="write --ulimit nofile=1024:2048")
    known = [name.removeprefix("RLIMIT_").lower() for name in dir(resource) if name.startswith("RLIMIT_")]
    if match[1] not in known:
        raise UsageError(f"--ulimit {text!r}: there is no limit {match[1]!r}", remedy="known are " + ", ".join(known))
    soft = int(match[2])
    hard = int(match[3]) if match[3] else soft
    if hard != -1 and (soft > hard or soft == -1):
        raise UsageError(f"invalid --ulimit {text!r}: the soft limit is above the hard one")
    return match[1], soft, hard
