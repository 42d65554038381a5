"""Caches that travel: a second machine (another root) with only the registry, the directory or the image."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli import test_build_cache
from tests.support.archives import archive
from tests.support.builds import APPLETS, BUSYBOX, Cli, Done, needs_sandbox
from tests.support.docker_registry import docker_registry, needs_docker_registry
from tests.support.registry import FakeRegistry

pytestmark = needs_sandbox


def ran(done: Done) -> list[str]:
    """The instructions of the steps that were not cached."""
    return [step for step in test_build_cache.ran(done) if not step.startswith("load metadata")]


CONFIG = "application/vnd.builder.cache.config.v1+json"
ANNOTATION = "vnd.builder.cache.v1"
DOCKERFILE = """\
FROM {base} AS build
RUN echo one > /one; date +%N > /time
COPY src/a /src/
RUN --mount=type=bind,source=setup,target=/setup cat /setup /src/a > /out
WORKDIR /work
FROM scratch
COPY --from=build /out /time /
COPY --chmod=0600 src/b /b
ADD archive.tar /unpacked/
"""
RUNS = ("RUN echo one > /one; date +%N > /time",)
FINAL = 3  # layers of the result


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    """A registry with a base image, `base:1`, whose only layer holds busybox."""
    with FakeRegistry() as running:
        running.add_image("base", "1", layers=(_busybox_layer(),))
        yield running


def _busybox_layer() -> bytes:
    folders: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in ("bin", "dev", "proc", "sys", "tmp")]
    links = [(f"bin/{name}", {"type": b"2", "link": "busybox"}) for name in APPLETS]
    return archive(*folders, ("bin/busybox", {"data": Path(BUSYBOX).read_bytes(), "mode": 0o755}), *links)


def base_layer(registry: FakeRegistry) -> str:
    return "sha256:" + hashlib.sha256(_busybox_layer()).hexdigest()


def make_context(directory: Path, base: str, dockerfile: str = DOCKERFILE) -> Path:
    (directory / "src").mkdir(parents=True)
    for name, text in (("src/a", "a"), ("src/b", "b"), ("setup", "set up\n")):
        (directory / name).write_text(text)
    (directory / "archive.tar").write_bytes(archive(("file", {"data": b"in the archive"})))
    (directory / "Dockerfile").write_text(dockerfile.format(base=base))
    return directory


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[str], Cli]:
    """Machines by name: each has a root and a home of its own."""

    def make(name: str) -> Cli:
        (tmp_path / name).mkdir(exist_ok=True)
        return Cli(tmp_path / name / "root", BUILDER_CONFIG=str(_no_configuration(tmp_path)))

    return make


def _no_configuration(directory: Path) -> Path:
    path = directory / "builder.toml"
    path.touch()
    return path


def copy_of(directory: Path, name: str) -> Path:
    """The same context at another place, with other times, as another checkout has it."""
    path = directory.parent / name
    shutil.copytree(directory, path, copy_function=shutil.copy)
    return path


def image(cli: Cli, name: str = "app") -> tuple[str, list[str]]:
    return cli.image_id(name), [layer["digest"] for layer in cli.manifest(name)["layers"]]


def fetched(registry: FakeRegistry) -> set[str]:
    """The blobs that were asked for."""
    return {line.rpartition("/")[2] for line in registry.requests if line.startswith("GET") and "/blobs/" in line}


CACHES = {
    "registry": (
        ["--cache-to", "type=registry,ref={host}/cache:1{more}"],
        ["--cache-from", "type=registry,ref={host}/cache:1"],
    ),
    "short": (["--cache-to", "type=registry,ref={host}/cache:1{more}"], ["--cache-from", "{host}/cache:1"]),
    "local": (["--cache-to", "type=local,dest={tmp}/cache{more}"], ["--cache-from", "type=local,src={tmp}/cache"]),
    "inline": (
        ["--push", "--cache-to", "type=inline"],
        ["--cache-from", "type=registry,ref={host}/app:1"],
    ),
    "argument": (["--push", "--build-arg", "BUILDKIT_INLINE_CACHE=1"], ["--cache-from", "{host}/app:1"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("registry", ""),
        ("registry", ",mode=max"),
        ("registry", ",mode=max,oci-mediatypes=false"),
        ("registry", ",mode=max,recipes=false"),
        ("short", ",compression=zstd"),
        ("local", ""),
        ("local", ",mode=max,compression=zstd,compression-level=9"),
        ("inline", ""),
        ("argument", ""),
    ],
)
def test_another_machine_runs_nothing(
    kind: str, more: str, registry: FakeRegistry, machine: Callable[[str], Cli], tmp_path: Path
) -> None:
    """Every step is found, the image is the same, and of the base's layers and the other stage's none is fetched."""
    directory = make_context(tmp_path / "context", f"{registry.host}/base:1")
    target, source = (
        [text.format(host=registry.host, tmp=tmp_path, more=more) for text in texts] for texts in CACHES[kind]
    )
    first, second = machine("first"), machine("second")
    assert len(ran(first.build("-t", f"{registry.host}/app:1", *target, directory))) == 7
    first.build("-t", "app", directory)
    pushed = kind in ("inline", "argument")
    registry.requests.clear()
    done = second.build("-t", "app", *source, copy_of(directory, "elsewhere"))
    assert ran(done) == []
    assert "WARNING" not in done.err
    assert done.cached() == 7
    assert second.image_id("app") == first.image_id("app")
    assert base_layer(registry) not in fetched(registry)
    if kind != "local":
        own = fetched(registry) & {layer["digest"] for layer in second.manifest("app")["layers"]}
        assert len(own) == FINAL
        documents = 2 if not pushed else 1  # the base's configuration and the cache's, or the image's
        assert len(fetched(registry)) == FINAL + documents + (1 if pushed else 0)
    assert second.leftovers() == []


def test_inline_changes_only_an_annotation(
    registry: FakeRegistry, machine: Callable[[str], Cli], tmp_path: Path
) -> None:
    directory = make_context(tmp_path / "context", f"{registry.host}/base:1")
    cli = machine("first")
    cli.build("-t", "plain", directory)
    cli.build("-t", "inline", "--cache-to", "type=inline", directory)
    plain, inline = cli.manifest("plain"), cli.manifest("inline")
    annotations = inline.pop("annotations")
    assert plain == inline
    (value,) = annotations.values()
    document = json.loads(value)
    assert set(annotations) == {ANNOTATION}
    assert document["version"] == 1
    assert all("recipe" not in record for record in document["records"])
    before = cli.entries()["docker.io/library/inline:latest"]["digest"]
    cli.build("-t", "inline", "--cache-to", "type=inline", directory)
    assert cli.entries()["docker.io/library/inline:latest"]["digest"] == before


def test_inline_in_an_index(registry: FakeRegistry, machine: Callable[[str], Cli], tmp_path: Path) -> None:
    """Each platform's manifest has the records, and its own layers."""
    dockerfile = "FROM {base} AS one\nCOPY src/a /\nFROM scratch\nARG TARGETARCH\nCOPY --from=one /a /$TARGETARCH\n"
    directory = make_context(tmp_path / "context", "scratch", dockerfile)
    name = f"{registry.host}/app:1"
    arguments = ("--platform", "linux/amd64,linux/arm64", directory)
    machine("first").build("-t", name, "--push", "--cache-to", "type=inline", *arguments)
    done = machine("second").build("-t", "app", "--cache-from", name, *arguments)
    assert ran(done) == []
    first, second = (machine(which).entries() for which in ("first", "second"))
    assert len(json.loads(machine("second").blob(second["docker.io/library/app:latest"]["digest"]))["manifests"]) == 2
    assert first[name]["digest"] != second["docker.io/library/app:latest"]["digest"]  # that one has no cache in it
    assert ran(machine("third").build("--cache-from", name, "--platform", "linux/arm64", directory)) == []


def test_a_directory_keeps_what_its_tags_have(machine: Callable[[str], Cli], tmp_path: Path) -> None:
    directory = make_context(tmp_path / "context", "scratch", "FROM {base}\nCOPY src/a /\n")
    cli, cache = machine("first"), tmp_path / "cache"
    blobs = []
    for text, more in (("1", ""), ("2", ",tag=other"), ("3", ""), ("3", ",reset=true")):
        (directory / "src/a").write_text(text)
        cli.build("--cache-to", f"type=local,dest={cache}{more}", directory)
        blobs.append(len(list((cache / "blobs/sha256").iterdir())))
    assert blobs == [3, 6, 9, 6]
    (directory / "src/a").write_text("2")
    assert ran(machine("second").build("--cache-from", f"type=local,src={cache},tag=other", directory)) == []
    assert sorted(path.name for path in cache.iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_a_cache_is_an_image_manifest(registry: FakeRegistry, machine: Callable[[str], Cli], tmp_path: Path) -> None:
    """What registries check: the types, and that every blob is there. Nothing tells where the build was."""
    directory = make_context(tmp_path / "context", f"{registry.host}/base:1")
    cli = machine("first")
    cli.build("-t", "app", "--cache-to", f"type=registry,ref={registry.host}/cache:1,mode=max", directory)
    media_type, data = registry.repositories["cache"]["1"]
    manifest = json.loads(data)
    assert media_type == manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["config"]["mediaType"] == CONFIG
    assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar+gzip"}
    document = json.loads(registry.blobs["cache"][manifest["config"]["digest"]])
    assert len(document["layers"]) == len(manifest["layers"]) == 8  # seven steps, and what a mount shows of the context
    assert base_layer(registry) not in {layer["digest"] for layer in manifest["layers"]}
    assert str(tmp_path) not in json.dumps(document)
    registry.requests.clear()
    cli.build("-t", "app", "--cache-to", f"type=registry,ref={registry.host}/cache:1,mode=max", directory)
    assert registry.count("PUT|POST|PATCH") == 0


def test_what_a_cache_tells(registry: FakeRegistry, machine: Callable[[str], Cli], tmp_path: Path) -> None:
    """Recipes name arguments and their values, except those that look like secrets; keys alone name nothing."""
    dockerfile = "FROM {base}\nARG VERSION\nARG API_TOKEN\nRUN true\n"
    directory = make_context(tmp_path / "context", f"{registry.host}/base:1", dockerfile)
    told = []
    for more in ("", ",recipes=false"):
        given = ("--build-arg", "VERSION=1.2.3", "--build-arg", "API_TOKEN=hunter2", directory)
        machine("first").build("--cache-to", f"type=registry,ref={registry.host}/cache:1{more}", *given)
        manifest = json.loads(registry.repositories["cache"]["1"][1])
        told.append(registry.blobs["cache"][manifest["config"]["digest"]])
    assert b"1.2.3" in told[0]
    assert b"1.2.3" not in told[1]
    assert b"RUN" not in told[1]
    assert not any(b"hunter2" in document for document in told)


def test_what_changed_runs_and_nothing_else(
    registry: FakeRegistry, machine: Callable[[str], Cli], tmp_path: Path
) -> None:
    """Of a cache without the other stage's layers: the stage runs where its result is needed, and only there."""
    directory = make_context(tmp_path / "context", f"{registry.host}/base:1")
    machine("first").build("-t", "app", "--cache-to", f"type=local,dest={tmp_path}/min", directory)
    machine("first").build("-t", "app", "--cache-to", f"type=local,dest={tmp_path}/max,mode=max", directory)
    changed = copy_of(directory, "changed")
    (changed / "src/b").write_text("B")
    assert ran(machine("b").build("--cache-from", f"type=local,src={tmp_path}/min", changed)) == [
        "COPY --chmod=0600 src/b /b"
    ]
    (changed / "setup").write_text("another set up\n")
    found = ran(machine("max").build("--cache-from", f"type=local,src={tmp_path}/max", changed))
    assert found == [
        "RUN --mount=type=bind,source=setup,target=/setup cat /setup /src/a > /out",
        "COPY --from=build /out /time /",
        "COPY --chmod=0600 src/b /b",
    ]
    again = machine("min").build("-t", "app", "--cache-from", f"type=local,src={tmp_path}/min", changed)
    assert "that no cache has" in again.err
    assert {line for line in ran(again) if line.startswith("RUN")} == {
        "RUN echo one > /one; date +%N > /time",
        "RUN --mount=type=bind,source=setup,target=/setup cat /setup /src/a > /out",
    }
    assert machine("min").files("app")["out"].content == b"another set up\na"


def test_copies_outlive_a_new_base(registry: FakeRegistry, machine: Callable[[str], Cli], tmp_path: Path) -> None:
    """The second level of keys travels too: by content and the facts asked of the parent."""
    dockerfile = "FROM {base}\nCOPY src/ /src/\nWORKDIR /w\nRUN cat /version\n"
    directory = make_context(tmp_path / "context", f"{registry.host}/base:2", dockerfile)
    registry.add_image("base", "2", layers=(_busybox_layer(), archive(("version", {"data": b"1"}))))
    reference = f"{registry.host}/cache:1"
    machine("first").build("--cache-to", f"type=registry,ref={reference},mode=max", directory)
    again = machine("between").build(
        "--cache-from", reference, "--cache-to", f"type=registry,ref={reference}", directory
    )
    assert ran(again) == []
    registry.add_image("base", "2", layers=(_busybox_layer(), archive(("version", {"data": b"2"}))))
    assert ran(machine("second").build("--cache-from", reference, directory)) == ["RUN cat /version"]


def test_what_a_cache_gave_stays_with_those_who_name_it(
    registry: FakeRegistry, machine: Callable[[str], Cli], tmp_path: Path
) -> None:
    """The store's own cache takes nothing over; the layers that were fetched are layers like all others."""
    directory = make_context(tmp_path / "context", f"{registry.host}/base:1")
    source = ("--cache-from", f"type=local,src={tmp_path}/cache")
    machine("first").build("--cache-to", f"type=local,dest={tmp_path}/cache,mode=max", directory)
    second = machine("second")
    assert ran(second.build("-t", "app", *source, directory)) == []
    assert ran(second.build("-t", "app", *source, directory)) == []
    assert len(ran(second.build("-t", "other", directory))) == 7
    assert second.files("other")["b"].content == b"b"


def test_a_cache_that_cannot_be_read_is_a_warning(
    registry: FakeRegistry, machine: Callable[[str], Cli], tmp_path: Path
) -> None:
    directory = make_context(tmp_path / "context", "scratch", "FROM {base}\nCOPY src/ /\n")
    cases = {
        f"{registry.host}/cache:none": "there is none yet",
        f"type=local,src={tmp_path}/none": "there is none yet",
        f"{registry.host}/base:1": "without a cache of this builder's",
        "127.0.0.1:1/x:1": "left out",
    }
    for source, text in cases.items():
        done = machine("first").build("--no-cache", "--cache-from", source, directory)
        (warning,) = [line for line in done.err.splitlines() if line.startswith("WARNING")]
        assert text in warning, warning


@pytest.mark.parametrize("form", ["manifest", "index"])
def test_a_cache_of_buildkit_is_left_out(
    form: str, registry: FakeRegistry, machine: Callable[[str], Cli], tmp_path: Path
) -> None:
    config = registry.add_blob("cache", b'{"layers":[],"records":[]}')
    kind = "application/vnd.buildkit.cacheconfig.v0"
    entry = {"mediaType": kind, "digest": config, "size": 26}
    if form == "manifest":
        registry.add_manifest("cache", {"schemaVersion": 2, "config": entry, "layers": []}, "1")
    else:
        registry.add_index("cache", "1", entry)
    directory = make_context(tmp_path / "context", "scratch", "FROM {base}\nCOPY src/ /\n")
    done = machine("first").build("--cache-from", f"{registry.host}/cache:1", directory)
    assert "it was made by BuildKit" in done.err


def test_errors_of_writing(registry: FakeRegistry, machine: Callable[[str], Cli], tmp_path: Path) -> None:
    directory = make_context(tmp_path / "context", "scratch", "FROM {base}\nCOPY src/ /\n")
    (tmp_path / "file").write_text("in the way")
    cli = machine("first")
    target = f"type=local,dest={tmp_path}/file/cache"
    failed = cli("build", "-t", "app", "--cache-to", target, directory)
    assert failed.status == 1
    assert "error: " in failed.err
    assert cli.files("app")  # the outputs come first
    done = cli.build("-t", "app", "--cache-to", f"{target},ignore-error=true", directory)
    assert "WARNING: the cache was not written" in done.err
    for arguments, text in (
        (("--cache-to", "type=inline", "-o", "type=tar,dest=-"), "needs an output with an image"),
        (("--cache-to", "type=inline", "--squash"), "squashed"),
        (("--cache-to", "type=gha"), "type=gha is not supported"),
        (("--cache-from", "type=inline"), "an inline cache is in an image"),
    ):
        refused = cli("build", *arguments, directory)
        assert refused.status in (1, 2)
        assert text in refused.err


# --- against what a cache may do wrong


def tamper(cache: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change the manifest and the document of a cache in a directory, and make all digests fit again."""
    index = json.loads((cache / "index.json").read_text())
    manifest = json.loads(_blob(cache, index["manifests"][0]["digest"]).read_text())
    document = json.loads(_blob(cache, manifest["config"]["digest"]).read_text())
    change(manifest, document)
    data = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()  # keys are of recipes as they stand
    manifest["config"].update(_put(cache, data))
    index["manifests"][0].update(_put(cache, json.dumps(manifest).encode()))
    (cache / "index.json").write_text(json.dumps(index))


def _blob(cache: Path, digest: str) -> Path:
    return cache / "blobs" / digest.replace(":", "/")


def _put(cache: Path, data: bytes) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    _blob(cache, digest).write_bytes(data)
    return {"digest": digest, "size": len(data)}


def _swap_layers(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    """Every blob claims to be another layer."""
    manifest["layers"] = manifest["layers"][1:] + manifest["layers"][:1]


def _lie_about_the_version(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    document["version"] = 2


def _absurd_time(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    document["records"][0]["created"] = 1e300


def _absurd_diff_id(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    document["records"][0]["diff_id"] = "sha256:../../../etc/passwd"


def _too_few_layers(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    manifest["layers"].pop()


def _absurd_digest(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    manifest["layers"][0]["digest"] = "md5:0"


def _absurd_size(manifest: dict[str, Any], document: dict[str, Any]) -> None:
    manifest["config"]["size"] = 1 << 60


@pytest.fixture(scope="module")
def scratch_cache(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A context, a cache of it, and its steps. It needs no base image."""
    directory = tmp_path_factory.mktemp("cached")
    dockerfile = "FROM {base}\nCOPY src/a /\nCOPY src/b /\nWORKDIR /w\n"
    context = make_context(directory / "context", "scratch", dockerfile)
    _no_configuration(directory)
    first = Cli(directory / "root").build("-t", "app", "--cache-to", f"type=local,dest={directory}/cache", context)
    return context, directory / "cache", ran(first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_lie_about_the_version, "of version 2, and this builder reads version 1"),
        (_absurd_time, "a record that makes no sense"),
        (_absurd_diff_id, "a record that makes no sense"),
        (_too_few_layers, "its manifest has 2 blobs"),
        (_absurd_digest, "a blob that cannot be"),
    ],
)
def test_a_forged_document_is_left_out(
    change: Callable[[dict[str, Any], dict[str, Any]], None],
    message: str,
    scratch_cache: tuple[Path, Path, list[str]],
    machine: Callable[[str], Cli],
    tmp_path: Path,
) -> None:
    context, original, steps = scratch_cache
    cache = tmp_path / "cache"
    shutil.copytree(original, cache)
    tamper(cache, change)
    cli = machine("second")
    done = cli.build("-t", "app", "--cache-from", f"type=local,src={cache}", context)
    assert message in done.err
    assert ran(done) == steps
    assert cli.files("app")["a"].content == b"a"


def test_a_document_is_not_what_it_says(
    scratch_cache: tuple[Path, Path, list[str]], machine: Callable[[str], Cli], tmp_path: Path
) -> None:
    context, original, steps = scratch_cache
    for number, end in enumerate((-1, -40, 0)):
        cache = tmp_path / f"cache{number}"
        shutil.copytree(original, cache)
        index = json.loads((cache / "index.json").read_text())
        path = _blob(cache, index["manifests"][0]["digest"])
        path.write_bytes(path.read_bytes()[:end])
        done = machine(f"second{number}").build("--cache-from", f"type=local,src={cache}", context)
        assert "is damaged" in done.err
        assert ran(done) == steps


@pytest.mark.parametrize("damage", ["swapped", "truncated", "missing", "other bytes"])
def test_a_layer_that_is_not_what_it_says(
    damage: str, scratch_cache: tuple[Path, Path, list[str]], machine: Callable[[str], Cli], tmp_path: Path
) -> None:
    """The step is run after all, and nothing of the wrong blob is kept."""
    context, original, steps = scratch_cache
    cache = tmp_path / "cache"
    shutil.copytree(original, cache)
    index = json.loads((cache / "index.json").read_text())
    manifest = json.loads(_blob(cache, index["manifests"][0]["digest"]).read_text())
    if damage == "swapped":
        tamper(cache, _swap_layers)
    for layer in manifest["layers"]:
        path = _blob(cache, layer["digest"])
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:-5])
        elif damage == "missing":
            path.unlink()
        elif damage == "other bytes":
            path.write_bytes(path.read_bytes()[:-5] + b"other")
    cli = machine("second")
    done = cli.build("-t", "app", "--cache-from", f"type=local,src={cache}", context)
    assert ran(done) == steps
    assert "that no cache has" in done.err
    assert {name: entry.content for name, entry in cli.files("app").items()} == {"a": b"a", "b": b"b", "w": None}
    assert ran(cli.build("-t", "app", context)) == []
    assert cli.leftovers() == []


def test_a_lying_cache_cannot_give_another_image_s_layer(
    registry: FakeRegistry, machine: Callable[[str], Cli], tmp_path: Path
) -> None:
    """A record may claim any diff ID; the bytes of a base image's layer still come from the base image."""
    dockerfile = "FROM {base}\nCOPY src/a /\n"
    directory = make_context(tmp_path / "context", f"{registry.host}/base:1", dockerfile)
    machine("first").build("-t", "app", "--cache-to", f"type=local,dest={tmp_path}/cache", directory)

    def claim(manifest: dict[str, Any], document: dict[str, Any]) -> None:
        document["layers"] = [base_layer(registry)]
        for record in document["records"]:
            record["diff_id"] = base_layer(registry)

    tamper(tmp_path / "cache", claim)
    cli = machine("second")
    cli.build("-t", "app", "--cache-from", f"type=local,src={tmp_path}/cache", directory)
    assert [layer["digest"] for layer in cli.manifest("app")["layers"]] == [base_layer(registry)] * 2


def test_a_lying_cache_cannot_pass_off_a_blob_that_is_here(
    registry: FakeRegistry, machine: Callable[[str], Cli], tmp_path: Path
) -> None:
    """What a claim says of a blob that came for another reason is not believed either, in no later build."""
    directory = make_context(tmp_path / "context", "scratch", "FROM {base}\nCOPY src/a /\n")
    cli = machine("second")
    cli.build("-t", "app", "--cache-to", f"type=local,dest={tmp_path}/cache", directory)
    layers = cli.manifest("app")["layers"]

    def claim(manifest: dict[str, Any], document: dict[str, Any]) -> None:
        document["layers"] = [base_layer(registry)]
        for record in document["records"]:
            record["diff_id"] = base_layer(registry)

    tamper(tmp_path / "cache", claim)
    (cli.root / "cache.db").unlink()  # the blob stays, and nothing says what it holds
    done = cli.build("-t", "app", "--cache-from", f"type=local,src={tmp_path}/cache", directory)
    assert "gives blob" in done.err
    assert cli.manifest("app")["layers"] == layers
    (directory / "Dockerfile").write_text(f"FROM {registry.host}/base:1\nLABEL a=b\n")
    cli.build("-t", "based", directory)
    assert [layer["digest"] for layer in cli.manifest("based")["layers"]] == [base_layer(registry)]


# --- cache mounts


MOUNTS = "FROM {base}\nRUN --mount=type=cache,id=npm,target=/c n=$(cat /c/n)x; echo $n >/c/n; echo $n\n"


def said(done: Done) -> list[str]:
    """What the steps printed."""
    return [line.split(" ", 2)[2] for line in done.err.splitlines() if line.count(" ") == 2 and line.endswith("x")]


def test_cache_mounts_travel(registry: FakeRegistry, machine: Callable[[str], Cli], tmp_path: Path) -> None:
    """A fresh machine starts with what the first one had; what did not change is not sent again."""
    directory = make_context(tmp_path / "context", f"{registry.host}/base:1", MOUNTS)
    target = f"type=registry,ref={registry.host}/cache:1,mounts=npm;other"
    source = f"type=registry,ref={registry.host}/cache:1"
    first, second = machine("first"), machine("second")
    assert said(first.build("--no-cache", directory)) == ["x"]
    assert said(done := first.build("--no-cache", "--cache-to", target, directory)) == ["xx"]
    assert "no cache mount 'other'" in done.err
    registry.requests.clear()
    first.build("--cache-to", target, directory)
    assert registry.count("PUT|POST|PATCH") == 0

    found = second.build("--cache-from", source, "--cache-to", target, directory)
    assert ran(found) == []
    manifest = json.loads(registry.repositories["cache"]["1"][1])
    assert not fetched(registry) & {layer["digest"] for layer in manifest["layers"][1:]}, "no step needed the mount"
    assert len(manifest["layers"]) == 2, "and yet it travels on"
    assert said(second.build("--no-cache", "--cache-from", source, directory)) == ["xxx"]
    assert said(second.build("--no-cache", "--cache-from", source, directory)) == ["xxxx"], "what is there stays"
    assert b"npm" in second("cache", "ls").out


def test_a_damaged_cache_mount_starts_empty(
    registry: FakeRegistry, machine: Callable[[str], Cli], tmp_path: Path
) -> None:
    directory = make_context(tmp_path / "context", f"{registry.host}/base:1", MOUNTS)
    cache = tmp_path / "cache"
    machine("first").build("--no-cache", "--cache-to", f"type=local,dest={cache},mounts=npm", directory)
    index = json.loads((cache / "index.json").read_text())
    manifest = json.loads(_blob(cache, index["manifests"][0]["digest"]).read_text())
    blob = _blob(cache, manifest["layers"][-1]["digest"])
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    done = machine("second").build("--no-cache", "--cache-from", f"type=local,src={cache}", directory)
    assert "the cache mount npm starts empty" in done.err
    assert said(done) == ["x"]


# --- the real registry


@needs_docker_registry
def test_with_docker_registry(machine: Callable[[str], Cli], tmp_path: Path) -> None:
    """The whole round with Debian's docker-registry: a cache with a mount, then an inline one."""
    dockerfile = (
        "FROM scratch AS base\nADD base.tar /\nENV PATH=/bin\n"
        + MOUNTS.replace("{base}", "base")
        + ("FROM scratch\nCOPY --from=1 /bin/busybox /\nCOPY src/ /src/\n")
    )
    directory = make_context(tmp_path / "context", "", dockerfile.replace("{", "{{").replace("}", "}}"))
    (directory / "base.tar").write_bytes(_busybox_layer())
    with docker_registry(tmp_path / "registry") as host:
        first, second, third = machine("first"), machine("second"), machine("third")
        target = f"type=registry,ref={host}/cache/app:main,mode=max,mounts=npm"
        assert len(ran(first.build("-t", f"{host}/app:1", "--push", "--cache-to", target, directory))) == 4
        first.build("-t", "app", directory)
        started = time.perf_counter()
        done = second.build("-t", "app", "--cache-from", f"{host}/cache/app:main", copy_of(directory, "elsewhere"))
        assert time.perf_counter() - started < 20
        assert ran(done) == []
        assert second.image_id("app") == first.image_id("app")
        assert said(second.build("--no-cache", "--cache-from", f"{host}/cache/app:main", directory)) == ["xx"]
        first.build("-t", f"{host}/app:2", "--push", "--cache-to", "type=inline", directory)
        assert ran(third.build("-t", "app", "--cache-from", f"{host}/app:2", directory)) == []
        assert image(third)[0] == image(first)[0]
