"""`builder.build`: a build from Python, with keywords for all that `builder build` has as options.

It takes Python's types (paths, mappings, bytes) and makes the same `BuildOptions` of them that the command line makes
of its texts. Nothing is printed, no signal handler is set, and any thread may call it: notebooks and servers can.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

if TYPE_CHECKING:
    from builder.api.options import Budget, BuildOptions, BuildResult, SecretSource
    from builder.export.attestations import Attestations
    from builder.export.cache_options import CacheSource, CacheTarget
    from builder.export.output import Output
    from builder.progress import Reporter
    from builder.solver.annotations import Annotation
    from builder.solver.limits import Limits

Path = str | os.PathLike[str]


def build(
    context: Path | BinaryIO = ".",
    *,
    file: Path = "",
    dockerfile: str | bytes | None = None,
    tags: str | Sequence[str] = (),
    build_args: Mapping[str, str] | None = None,
    contexts: Mapping[str, Path] | None = None,
    target: str = "",
    platforms: str | Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    no_cache: bool | str | Collection[str] = False,
    pull: bool = False,
    offline: bool = False,
    policy: str | Sequence[str] = (),
    squash: bool | Literal["", "all", "new"] = False,
    outputs: str | Output | Sequence[str | Output] = (),
    push: bool = False,
    load: bool = False,
    secrets: Mapping[str, bytes | str | os.PathLike[str]] | None = None,
    ssh: Mapping[str, Path | Sequence[Path]] | None = None,
    hosts: Mapping[str, str] | None = None,
    network: Literal["", "default", "none", "host"] = "",
    allow: str | Collection[str] = (),
    isolation: Literal["default", "chroot"] = "default",
    shm_size: int = 0,
    ulimits: Mapping[str, int | tuple[int, int]] | None = None,
    memory: int = 0,
    cpus: float = 0.0,
    jobs: int = 0,
    max_size: int | None = None,
    max_layer: int | None = None,
    max_waste: int | float | None = None,
    provenance: bool | str = False,
    sbom: bool | str = False,
    attest: str | Sequence[str] = (),
    cache_from: str | Sequence[str] = (),
    cache_to: str | Sequence[str] = (),
    report: Path = "",
    trace: Path = "",
    root: Path | None = None,
    on_event: Reporter | None = None,
    environ: Mapping[str, str] | None = None,
) -> BuildResult:
    """Build an image from a Dockerfile, and deliver it: to the store under its tags, or to `outputs`.

    What goes in: `context` is a directory, a git or HTTP URL, or a binary stream (a tar archive, or a Dockerfile);
    `file` the Dockerfile's path, or `dockerfile` its text. `contexts` are more contexts by name: directories, URLs,
    `docker-image://…`, `oci-layout://…`. `policy="disabled=true"` builds without a policy in Rego. `secrets` are by
    ID: bytes are the secret, a string its text (in UTF-8), a path object the file that holds it. `ssh` are agents by
    ID: the path of a socket, or those of private keys.

    What comes out: `tags`, `labels`, `annotations` (of the manifest; a key may begin with a place, as in `index:KEY`),
    `platforms` such as `linux/arm64`, `outputs` as `--output` has them (`type=oci,dest=app.tar`). `push` pushes under
    the tags; `load` keeps the image in the store beside other outputs. `squash` is True or `all` for one layer, `new`
    to keep the base's. `max_size`, `max_layer` (bytes) and `max_waste` (bytes, or a float for a share, 0.05 is 5 %)
    fail a build that is larger. `provenance`, `sbom` and `attest` are True, or texts as the command line has them.

    How: `no_cache` is True, or the stages whose steps run anew. Of RUN steps `memory` and `shm_size` are in bytes,
    `cpus` and `jobs` (steps at once) are numbers, 0 for no limit of their own; `ulimits` are (soft, hard) by name, -1
    for none; `hosts` addresses by name. `report` and `trace` are files to write, as with `--report` and `--trace`.
    `root` is the store, by default that of the command line; `environ` what variables and credentials are looked up
    in, by default the process's environment.

    `on_event` is called with each event (builder.progress), from several threads, and must not raise. To end a build
    early raise in the thread that waits for it (KeyboardInterrupt does).

    Raises UsageError for options that do not make sense, another BuilderError for a build that fails; both have
    `cause`, `place`, `remedy` and `details`, and `builder.errors.render` makes a message of them.
    """
    stdin, given_context, given_file = _inputs(context, file, dockerfile)
    environ = dict(os.environ if environ is None else environ)
    from builder.api.choices import NETWORKS, check_choice
    from builder.api.options import BuildOptions
    from builder.errors import UsageError
    from builder.export.output import adjust_outputs, parse_output
    from builder.oci.platform import parse_target
    from builder.places import default_root

    if squash not in (False, True, "", "all", "new"):
        raise UsageError(f"squash={squash!r} is neither True, 'all' nor 'new'")
    check_choice("network", network or "default", NETWORKS)
    check_choice("isolation", isolation, ("default", "chroot"))
    parsed = tuple(parse_output(one) if isinstance(one, str) else one for one in _texts(outputs))
    options = BuildOptions(
        context=given_context,
        dockerfile=given_file,
        tags=_texts(tags),
        build_args=dict(build_args or {}),
        contexts={name: os.fspath(path) for name, path in (contexts or {}).items()},
        target=target,
        platforms=tuple(dict.fromkeys(parse_target(one) for text in _texts(platforms) for one in text.split(","))),
        labels=dict(labels or {}),
        annotations=_annotations(annotations or {}),
        no_cache=_no_cache(no_cache),
        pull=pull,
        offline=offline,
        rego=_policies_count(_texts(policy)),
        squash="all" if squash is True else squash or "",
        outputs=adjust_outputs(parsed, push=push, load=load),
        cache_from=_cache_sources(_texts(cache_from)),
        cache_to=_cache_targets(_texts(cache_to)),
        attestations=_attestations(provenance, sbom, _texts(attest)),
        secrets={name: _secret(value) for name, value in (secrets or {}).items()},
        agents={name: tuple(os.fspath(path) for path in _texts(paths)) for name, paths in (ssh or {}).items()},
        network=network,
        allow=_entitlements(allow),
        isolation=isolation,
        limits=_limits(memory, cpus, shm_size, ulimits or {}, hosts or {}),
        jobs=jobs,
        budget=_budget(max_size, max_layer, max_waste),
        report=os.fspath(report),
        trace=os.fspath(trace),
        root=os.fspath(root) if root is not None else default_root(environ),
        environ=environ,
    )
    return run_build(options, on_event, stdin)


def run_build(options: BuildOptions, on_event: Reporter | None = None, stdin: BinaryIO | None = None) -> BuildResult:
    """Do a build whose options are made already. As root it is done in this process. For other users it needs a user
    namespace, which no process with threads can enter: a process of its own does it. Raises BuilderError."""
    from builder.api.build import build as build_here
    from builder.progress import ignore

    report = on_event or ignore
    if os.geteuid() == 0:
        return build_here(options, report, stdin)
    from builder.api.worker import report_apart

    return report_apart(build_here, options, report, stdin)


def _inputs(context: Path | BinaryIO, file: Path, dockerfile: str | bytes | None) -> tuple[BinaryIO | None, str, str]:
    """What is read as standard input, the context and the Dockerfile as the command line would name them."""
    from builder.errors import UsageError

    path = os.fspath(file)
    if dockerfile is not None:
        import io

        if path:
            raise UsageError("both file and dockerfile are given", remedy="give the Dockerfile's path or its text")
        if not isinstance(context, (str, os.PathLike)):
            raise UsageError(
                "a context that is a stream must hold its Dockerfile", remedy="leave out dockerfile, or give a path"
            )
        text = dockerfile.encode() if isinstance(dockerfile, str) else dockerfile
        return io.BytesIO(text), os.fspath(context), "-"
    if not isinstance(context, (str, os.PathLike)):
        return context, "-", path
    if os.fspath(context) == "-" or path == "-":
        raise UsageError("standard input is not read", remedy="give a binary stream as the context, or dockerfile=")
    return None, os.fspath(context), path


def _texts(given: Any) -> tuple[Any, ...]:
    """One thing or several, as several: a lone string is no sequence of letters."""
    if isinstance(given, (str, os.PathLike)) or not isinstance(given, Collection):
        return (given,)
    return tuple(given)


def _no_cache(given: bool | str | Collection[str]) -> frozenset[str] | None:
    if isinstance(given, bool):
        return frozenset() if given else None
    return frozenset(_texts(given)) or None


def _secret(given: bytes | str | os.PathLike[str]) -> SecretSource:
    from builder.api.options import SecretSource

    if isinstance(given, os.PathLike):
        return SecretSource(path=os.fspath(given))
    return SecretSource(value=given.encode() if isinstance(given, str) else bytes(given))


def _annotations(given: Mapping[str, str]) -> tuple[Annotation, ...]:
    from builder.solver.annotations import parse_annotation

    return tuple(found for key, value in given.items() for found in parse_annotation(f"{key}={value}"))


def _entitlements(given: str | Collection[str]) -> frozenset[str]:
    from builder.api.options import check_entitlements

    return check_entitlements(_texts(given))


def _limits(
    memory: int, cpus: float, shm_size: int, ulimits: Mapping[str, int | tuple[int, int]], hosts: Mapping[str, str]
) -> Limits:
    from builder.api.options import check_cpus
    from builder.solver.hosts import host
    from builder.solver.limits import Limits

    pairs = {name: (both, both) if isinstance(both, int) else both for name, both in ulimits.items()}
    return Limits(
        memory=memory,
        cpus=check_cpus(cpus),
        shm_size=shm_size,
        ulimits=tuple((name, soft, hard) for name, (soft, hard) in pairs.items()),
        hosts=tuple(host(name, address) for name, address in hosts.items()),
    )


def _budget(size: int | None, layer: int | None, waste: int | float | None) -> Budget | None:
    from builder.api.options import Budget

    if size is None and layer is None and waste is None:
        return None
    if isinstance(waste, float):
        return Budget(size=size, layer=layer, waste_share=waste)
    return Budget(size=size, layer=layer, waste=waste)


def _attestations(provenance: bool | str, sbom: bool | str, attest: tuple[str, ...]) -> Attestations | None:
    if not (provenance or sbom or attest):
        return None
    from builder.export.attestations import parse_attestations

    said, packages = ("true" if given is True else given or "" for given in (provenance, sbom))
    return parse_attestations(said, packages, attest) or None


def _policies_count(texts: tuple[str, ...]) -> bool:
    if not texts:
        return True
    from builder.api.policies import policies_count

    return policies_count(texts)


def _cache_sources(texts: tuple[str, ...]) -> tuple[CacheSource, ...]:
    if not texts:
        return ()
    from builder.export.cache_options import parse_cache_sources

    return parse_cache_sources(texts)


def _cache_targets(texts: tuple[str, ...]) -> tuple[CacheTarget, ...]:
    if not texts:
        return ()
    from builder.export.cache_options import parse_cache_targets

    return parse_cache_targets(texts)
