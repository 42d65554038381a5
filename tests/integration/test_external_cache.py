"""Caches that travel: a second machine (another root) with only the registry, the directory or the image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.archives import archive
from tests.support.builds import needs_sandbox
from tests.support.external_cache import FINAL, Machine, base_layer, busybox_layer, copy_of, fetched, make_context, ran
from tests.support.registry import FakeRegistry

pytestmark = needs_sandbox

CONFIG = "application/vnd.builder.cache.config.v1+json"
ANNOTATION = "vnd.builder.cache.v1"
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
    kind: str, more: str, registry: FakeRegistry, machine: Machine, tmp_path: Path
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
    assert base_layer() not in fetched(registry)
    if kind != "local":
        own = fetched(registry) & {layer["digest"] for layer in second.manifest("app")["layers"]}
        assert len(own) == FINAL
        documents = 2 if not pushed else 1  # the base's configuration and the cache's, or the image's
        assert len(fetched(registry)) == FINAL + documents + (1 if pushed else 0)
    assert second.leftovers() == []


def test_inline_changes_only_an_annotation(registry: FakeRegistry, machine: Machine, tmp_path: Path) -> None:
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


def test_inline_in_an_index(registry: FakeRegistry, machine: Machine, tmp_path: Path) -> None:
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


def test_a_directory_keeps_what_its_tags_have(machine: Machine, tmp_path: Path) -> None:
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


def test_a_cache_is_an_image_manifest(registry: FakeRegistry, machine: Machine, tmp_path: Path) -> None:
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
    assert base_layer() not in {layer["digest"] for layer in manifest["layers"]}
    assert str(tmp_path) not in json.dumps(document)
    registry.requests.clear()
    cli.build("-t", "app", "--cache-to", f"type=registry,ref={registry.host}/cache:1,mode=max", directory)
    assert registry.count("PUT|POST|PATCH") == 0


def test_what_a_cache_tells(registry: FakeRegistry, machine: Machine, tmp_path: Path) -> None:
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


def test_what_changed_runs_and_nothing_else(registry: FakeRegistry, machine: Machine, tmp_path: Path) -> None:
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


def test_copies_outlive_a_new_base(registry: FakeRegistry, machine: Machine, tmp_path: Path) -> None:
    """The second level of keys travels too: by content and the facts asked of the parent."""
    dockerfile = "FROM {base}\nCOPY src/ /src/\nWORKDIR /w\nRUN cat /version\n"
    directory = make_context(tmp_path / "context", f"{registry.host}/base:2", dockerfile)
    registry.add_image("base", "2", layers=(busybox_layer(), archive(("version", {"data": b"1"}))))
    reference = f"{registry.host}/cache:1"
    machine("first").build("--cache-to", f"type=registry,ref={reference},mode=max", directory)
    again = machine("between").build(
        "--cache-from", reference, "--cache-to", f"type=registry,ref={reference}", directory
    )
    assert ran(again) == []
    registry.add_image("base", "2", layers=(busybox_layer(), archive(("version", {"data": b"2"}))))
    assert ran(machine("second").build("--cache-from", reference, directory)) == ["RUN cat /version"]


def test_what_a_cache_gave_stays_with_those_who_name_it(
    registry: FakeRegistry, machine: Machine, tmp_path: Path
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


def test_a_cache_that_cannot_be_read_is_a_warning(registry: FakeRegistry, machine: Machine, tmp_path: Path) -> None:
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
def test_a_cache_of_buildkit_is_left_out(form: str, registry: FakeRegistry, machine: Machine, tmp_path: Path) -> None:
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


def test_caches_that_are_not_done(machine: Machine, tmp_path: Path) -> None:
    directory = make_context(tmp_path / "context", "scratch", "FROM {base}\nCOPY src/ /\n")
    local = f"type=local,dest={tmp_path}/cache"
    arguments = ("--cache-from", "type=gha,scope=x", "--cache-to", "type=gha,mode=max,scope=x", "--cache-to", local)
    done = machine("first").build("-t", "app", *arguments, directory)
    assert done.err.count("WARNING: --cache-from type=gha is not supported, and the build goes on without it") == 1
    assert done.err.count("WARNING: --cache-to type=gha is not supported, and the build goes on without it") == 1
    assert (tmp_path / "cache/index.json").exists()
    machine("first").build("--cache-to", "type=s3,bucket=b", "-o", "type=tar,dest=/dev/null", directory)


def test_errors_of_writing(registry: FakeRegistry, machine: Machine, tmp_path: Path) -> None:
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
        (("--cache-from", "type=inline"), "an inline cache is in an image"),
    ):
        refused = cli("build", *arguments, directory)
        assert refused.status in (1, 2)
        assert text in refused.err
