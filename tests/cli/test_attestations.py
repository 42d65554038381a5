"""Images with attestations: how they are stored, what they say, and that other tools take the images as before."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.cli.test_remote_contexts import Server, commit, needs_git, server
from tests.support.archives import archive
from tests.support.builds import Cli, busybox_context, context, full_name, needs_sandbox
from tests.support.registry import FakeRegistry

__all__ = ["commit", "server"]  # fixtures

STATUS = "Package: base-files\nStatus: install ok installed\nArchitecture: amd64\nVersion: 12.4\n"
SLSA, SPDX = "https://slsa.dev/provenance/v1", "https://spdx.dev/Document"


def small(tmp_path: Path) -> Path:
    return context(
        tmp_path / "context",
        'FROM scratch\nARG VERSION\nARG PASSWORD=x\nCOPY status /var/lib/dpkg/status\nLABEL v="$VERSION"\n',
        status=STATUS,
    )


def index(cli: Cli, name: str) -> list[dict[str, Any]]:
    """The entries of an image's index."""
    found: list[dict[str, Any]] = json.loads(cli.blob(cli.entries()[full_name(name)]["digest"]))["manifests"]
    return found


def statements(cli: Cli, entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the attestation manifest of an entry holds, by predicate type."""
    layers = json.loads(cli.blob(entry["digest"]))["layers"]
    assert {layer["mediaType"] for layer in layers} == {"application/vnd.in-toto+json"}
    found = {
        layer["annotations"]["in-toto.io/predicate-type"]: json.loads(cli.blob(layer["digest"])) for layer in layers
    }
    assert all(kind == made["predicateType"] for kind, made in found.items())
    return found


def provenance(cli: Cli, name: str, kind: str = SLSA) -> dict[str, Any]:
    predicate: dict[str, Any] = statements(cli, index(cli, name)[-1])[kind]["predicate"]
    return predicate


# --- the layout


def test_the_layout(cli: Cli, tmp_path: Path) -> None:
    cli.build("-t", "x:1", "-t", "ghcr.io/o/y:2", "--provenance=true", "--sbom=true", small(tmp_path))
    image, said = index(cli, "x:1")
    assert image["platform"]["os"] == "linux"
    assert said["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert said["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert said["annotations"] == {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    manifest = json.loads(cli.blob(said["digest"]))
    assert manifest["artifactType"] == "application/vnd.docker.attestation.manifest.v1+json"
    assert manifest["config"] == {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": "sha256:" + hashlib.sha256(b"{}").hexdigest(),
        "size": 2,
        "data": "e30=",
    }
    assert cli.blob(manifest["config"]["digest"]) == b"{}"
    assert manifest["subject"] == {key: image[key] for key in ("mediaType", "digest", "size")}
    made = statements(cli, said)
    assert list(made) == [SPDX, SLSA]
    machine = f"linux%2F{image['platform']['architecture']}"
    for statement in made.values():
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert statement["subject"] == [
            {"name": f"pkg:docker/x@1?platform={machine}", "digest": {"sha256": image["digest"][7:]}},
            {"name": f"pkg:docker/ghcr.io/o/y@2?platform={machine}", "digest": {"sha256": image["digest"][7:]}},
        ]
    (package,) = [one for one in made[SPDX]["predicate"]["packages"] if one["name"] == "base-files"]
    assert package["externalRefs"][0]["referenceLocator"] == "pkg:deb/debian/base-files@12.4?arch=amd64"


def test_the_older_layout(cli: Cli, tmp_path: Path) -> None:
    cli.build("--provenance=true", "-o", "type=image,name=x:1,oci-artifact=false", small(tmp_path))
    manifest = json.loads(cli.blob(index(cli, "x:1")[-1]["digest"]))
    assert "artifactType" not in manifest
    assert "subject" not in manifest
    assert json.loads(cli.blob(manifest["config"]["digest"])) == {
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [manifest["layers"][0]["digest"]]},
    }


def test_none_by_default(cli: Cli, tmp_path: Path) -> None:
    cli.build("-t", "x:1", "--provenance=false", "--attest", "type=sbom,disabled=true", small(tmp_path))
    assert "layers" in cli.manifest("x:1")


def test_platforms(cli: Cli, tmp_path: Path) -> None:
    cli.build("-t", "x:1", "--platform", "linux/amd64,linux/arm64", "--provenance=mode=min", small(tmp_path))
    entries = index(cli, "x:1")
    assert [entry["platform"]["architecture"] for entry in entries] == ["amd64", "arm64", "unknown", "unknown"]
    for image, said in zip(entries[:2], entries[2:], strict=True):
        assert said["annotations"]["vnd.docker.reference.digest"] == image["digest"]
        (subject,) = statements(cli, said)[SLSA]["subject"]
        assert subject["digest"]["sha256"] == image["digest"][7:]
        assert subject["name"].endswith(image["platform"]["architecture"])


def test_the_same_input_gives_the_same(cli: Cli, tmp_path: Path) -> None:
    given = ("--provenance=true", "--sbom=true", small(tmp_path))
    environ = {"SOURCE_DATE_EPOCH": "1000000000"}
    cli.build("-t", "x:1", *given, environ=environ)
    first = index(cli, "x:1")
    cli.build("-t", "x:1", *given, environ=environ)
    assert index(cli, "x:1") == first
    other = Cli(tmp_path / "other")
    other.build("-t", "x:1", *given, environ=environ)
    assert index(other, "x:1") == first
    metadata = provenance(cli, "x:1")["runDetails"]["metadata"]
    assert metadata["startedOn"] == metadata["finishedOn"] == "2001-09-09T01:46:40Z"
    assert "invocationId" not in metadata


# --- what the provenance says


@needs_sandbox
def test_everything(cli: Cli, server: Server, registry: FakeRegistry, tmp_path: Path) -> None:
    base = registry.add_image("base", layers=(archive(("etc/base", {"content": b"x"})),))
    listed = registry.add_manifest(
        "base", {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [base]}, "1"
    )
    (server.root / "file").write_text("content")
    (tmp_path / "secret").write_text("hush")
    built = busybox_context(
        tmp_path / "context",
        f"""\
FROM {registry.host}/base:1
COPY --from=base / /
ENV API_TOKEN=hidden PATH=/bin
ADD {server.url}/file /file
RUN --mount=type=secret,id=key,required --network=none echo hi > /hi
COPY <<here /here
text
here
WORKDIR /w
""",
    )
    cli.build(
        *("-t", "x:1", "--provenance=builder-id=https://ci.example/1,reproducible=true", "--build-arg", "A=1"),
        *("--build-arg", "PASSWORD=hidden", "--build-arg", "HTTP_PROXY=http://u:p@proxy:1", "--label", "l=m"),
        *("--secret", f"id=key,src={tmp_path}/secret", built),
    )
    made = provenance(cli, "x:1")
    definition, run = made["buildDefinition"], made["runDetails"]
    external = definition["externalParameters"]
    assert external["configSource"] == {"path": "Dockerfile"}
    assert external["request"] == {
        "frontend": "dockerfile.v0",
        "args": {
            "build-arg:A": "1",
            "build-arg:HTTP_PROXY": "http://xxxxx@proxy:1",
            "build-arg:PASSWORD": "",
            "label:l": "m",
        },
        "secrets": [{"id": "key"}],
        "ssh": [],
        "locals": [{"name": "context"}, {"name": "dockerfile"}],
    }
    dependencies = {one["uri"]: one["digest"] for one in definition["resolvedDependencies"]}
    (image,) = [uri for uri in dependencies if uri.startswith("pkg:docker/127.0.0.1%3A")]
    assert re.fullmatch(r"pkg:docker/127\.0\.0\.1%3A\d+/base@1\?platform=linux%2F\w+", image)
    assert dependencies == {
        image: {"sha256": listed[7:]},
        f"{server.url}/file": {"sha256": hashlib.sha256(b"content").hexdigest()},
    }
    assert run["builder"]["id"] == "https://ci.example/1"
    metadata = run["metadata"]
    assert metadata["buildkit_reproducible"] is True
    assert metadata["buildkit_completeness"] == {"request": False, "resolvedDependencies": False}
    assert re.fullmatch("[0-9a-f]{32}", metadata["invocationId"])
    info = metadata["buildkit_metadata"]["source"]["infos"][0]
    assert base64.b64decode(info["data"]).decode() == (built / "Dockerfile").read_text().replace("hidden", "")

    steps = {step["id"]: step for step in definition["internalParameters"]["buildConfig"]["llbDefinition"]}
    kinds = [next(iter(step["op"]["Op"])) if step["op"]["Op"] else None for step in steps.values()]
    assert kinds.count("exec") == 1
    assert kinds[-1] is None
    (command,) = [step for step in steps.values() if step["op"]["Op"] and "exec" in step["op"]["Op"]]
    meta = command["op"]["Op"]["exec"]["meta"]
    assert meta["args"] == ["/bin/sh", "-c", "echo hi > /hi"]
    assert "API_TOKEN=" in meta["env"]
    assert command["op"]["Op"]["exec"]["network"] == 2
    lines = metadata["buildkit_metadata"]["source"]["locations"][command["id"]]["locations"][0]["ranges"][0]
    text = (built / "Dockerfile").read_text().splitlines()
    assert text[lines["start"]["line"] - 1].startswith("RUN --mount=type=secret")
    for step in steps.values():
        assert all(source.split(":")[0] in steps for source in step["inputs"])
    layers = metadata["buildkit_metadata"]["layers"]
    manifest = json.loads(cli.blob(index(cli, "x:1")[0]["digest"]))
    longest = max((chain for chains in layers.values() for chain in chains), key=len)
    assert [layer["digest"] for layer in longest] == [layer["digest"] for layer in manifest["layers"]]
    whole = json.dumps(made)
    for hidden in ("hush", "hidden", "u:p"):
        assert hidden not in whole


@needs_sandbox
def test_no_secrets(cli: Cli, server: Server, tmp_path: Path) -> None:
    """Wherever a URL's credentials stand, or the value of a variable whose name says that it is secret."""
    (server.root / "file").write_text("content")
    host = server.url.removeprefix("http://")
    built = busybox_context(
        tmp_path / "context",
        f"""\
FROM base
ARG TOKEN=hunter2 A=1
ENV PROXY=http://me:p@hunter2@proxy/ \\
    API_KEY=hunter2
ADD http://me:hunter2@{host}/file /a/
ADD http://$TOKEN@{host}/file http://{host}/file?$TOKEN /b/
RUN : https://me:hunter2@example.com/x
COPY <<here /$API_KEY/
$TOKEN https://me:hunter2@example.com/y
here
WORKDIR /w/$TOKEN
""",
    )
    cli.build("-t", "x:1", "--provenance=true", "--build-arg", "URL=git://me:p@hunter2@h/@", built)
    made = provenance(cli, "x:1")
    texts = [json.dumps(made)]
    info = made["runDetails"]["metadata"]["buildkit_metadata"]["source"]["infos"][0]
    texts.append(base64.b64decode(info["data"]).decode())
    texts += [base64.b64decode(data).decode() for data in re.findall('"data": "([^"]+)"', texts[0])]
    assert len(texts) == 4
    assert not [text for text in texts if "hunter2" in text]
    assert texts[1].splitlines()[4:7] == ["ARG TOKEN= A=1", "ENV PROXY=http://xxxxx@proxy/ \\", "    API_KEY="]
    assert texts[1].count("\n") == (built / "Dockerfile").read_text().count("\n")
    external = made["buildDefinition"]["externalParameters"]
    assert external["request"]["args"] == {"build-arg:URL": "git://xxxxx@h/@"}
    (command,) = re.findall('"args": (\\[[^]]+\\])', texts[0])
    assert json.loads(command)[-1] == ": https://xxxxx@example.com/x"
    assert len(made["buildDefinition"]["resolvedDependencies"]) == 3


@pytest.mark.parametrize(
    ("dockerfile", "arguments", "complete"),
    [
        ("ARG A=1\n", ("A=https://h/x@y",), True),
        ("", ("A=https://u:p@h/",), False),
        ("ARG TOKEN=1\n", (), False),
        ("# https://u:p@h/\n", (), False),
        ("ARG TOKEN\n", ("TOKEN=",), True),
    ],
)
def test_what_is_withheld_makes_it_incomplete(
    cli: Cli, tmp_path: Path, dockerfile: str, arguments: tuple[str, ...], complete: bool
) -> None:
    built = context(tmp_path / "context", f"FROM scratch\n{dockerfile}COPY f /\n", f="f")
    cli.build("-t", "x:1", "--provenance=true", *(f"--build-arg={argument}" for argument in arguments), built)
    assert provenance(cli, "x:1")["runDetails"]["metadata"]["buildkit_completeness"]["request"] is complete


def test_digests_of_images_are_no_credentials(cli: Cli, tmp_path: Path) -> None:
    name = "docker-image://example.com/x@sha256:" + "0" * 64
    built = context(tmp_path / "context", "FROM scratch\nCOPY f /\n", f="f")
    cli.build("-t", "x:1", "--provenance=true", "--build-context", f"other={name}", built)
    request = provenance(cli, "x:1")["buildDefinition"]["externalParameters"]["request"]
    assert request["args"] == {"context:other": name}


def test_less(cli: Cli, tmp_path: Path) -> None:
    cli.build("-t", "x:1", "--provenance=mode=min", "--build-arg", "VERSION=1", "--target", "", small(tmp_path))
    made = provenance(cli, "x:1")
    request = made["buildDefinition"]["externalParameters"]["request"]
    assert request["args"] == {}
    assert "secrets" not in request
    assert "buildConfig" not in made["buildDefinition"]["internalParameters"]
    assert made["runDetails"]["metadata"]["buildkit_metadata"] == {}
    assert made["runDetails"]["metadata"]["buildkit_completeness"]["request"] is False


def test_version_02(cli: Cli, tmp_path: Path) -> None:
    cli.build("-t", "x:1", "--provenance=version=v0.2", small(tmp_path))
    made = provenance(cli, "x:1", "https://slsa.dev/provenance/v0.2")
    assert made["buildType"] == "https://mobyproject.org/buildkit@v1"
    assert made["invocation"]["configSource"] == {"entryPoint": "Dockerfile"}
    assert made["metadata"]["completeness"] == {"parameters": False, "environment": True, "materials": False}
    assert "source" in made["metadata"]["https://mobyproject.org/buildkit@v1#metadata"]


@needs_git
@pytest.mark.parametrize(
    ("fragment", "file", "path"),
    [("#main", "", "Dockerfile"), ("#main:sub", "Other", "Other"), ("#main", "sub/../sub/Dockerfile", "sub/Dockerfile"),
     ("#:sub", "", "Dockerfile")],
)  # fmt: skip
def test_a_repository(cli: Cli, server: Server, commit: str, fragment: str, file: str, path: str) -> None:
    """Its URI has the directory in it, as in BuildKit, and the Dockerfile's path begins there."""
    repository = f"{server.url}/repo.git"
    chosen = ("-f", file) if file else ()
    cli.build("-t", "x:1", "--provenance=complete-materials=true", *chosen, repository + fragment)
    made = provenance(cli, "x:1")
    digest = {"sha1": commit}
    source = made["buildDefinition"]["externalParameters"]["configSource"]
    assert source == {"path": path, "uri": repository + fragment, "digest": digest}
    (material,) = made["buildDefinition"]["resolvedDependencies"]
    assert material == {"uri": repository + ("#main" if "main" in fragment else ""), "digest": digest}
    assert made["buildDefinition"]["externalParameters"]["request"]["locals"] == []
    metadata = made["runDetails"]["metadata"]
    assert metadata["buildkit_metadata"]["source"]["infos"][0]["filename"] == path
    assert metadata["buildkit_completeness"]["resolvedDependencies"] is True
    assert metadata["buildkit_hermetic"] is True


@needs_git
@pytest.mark.parametrize("given", ["-", "path", "url"])
def test_a_dockerfile_beside_a_repository(cli: Cli, server: Server, commit: str, tmp_path: Path, given: str) -> None:
    """It is not one of the repository, and a local source without a digest, as buildx sends it."""
    (tmp_path / "Mine").write_bytes(text := b"FROM scratch\nCOPY file /\n")
    (server.root / "Mine").write_bytes(text)
    file = {"path": str(tmp_path / "Mine"), "url": f"{server.url}/Mine"}.get(given, given)
    done = cli(
        "build", "-t", "x:1", "--provenance=true", "-f", file, f"{server.url}/repo.git#main:sub",
        stdin=text if given == "-" else b"",
    )  # fmt: skip
    assert done.status == 0, done.err
    definition, run = (provenance(cli, "x:1")[part] for part in ("buildDefinition", "runDetails"))
    assert definition["externalParameters"]["request"]["locals"] == [{"name": "dockerfile"}]
    assert definition["externalParameters"]["configSource"]["path"] == ("Mine" if given == "path" else "Dockerfile")
    assert run["metadata"]["buildkit_completeness"]["resolvedDependencies"] is False


def test_materials_must_be_complete(cli: Cli, tmp_path: Path) -> None:
    done = cli("build", "--provenance=complete-materials=true", small(tmp_path))
    assert done.status == 1
    assert "the provenance's materials are incomplete: local sources (context, dockerfile) have no digest" in done.err


# --- outputs


def test_files(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cli.build(
        *("--provenance=filename=how.json", "--sbom=true", "-o", f"type=local,dest={out}"),
        *("-o", f"type=tar,dest={tmp_path}/files.tar", small(tmp_path)),
    )
    digest = {"sha256": hashlib.sha256(STATUS.encode()).hexdigest()}
    for name, kind in (("how.json", SLSA), ("sbom.spdx.json", SPDX)):
        made = json.loads((out / name).read_text())
        assert made["predicateType"] == kind
        assert made["subject"] == [{"name": "var/lib/dpkg/status", "digest": digest}]
    with tarfile.open(tmp_path / "files.tar") as files:
        assert {"how.json", "sbom.spdx.json", "var/lib/dpkg/status"} <= set(files.getnames())
        member = files.getmember("how.json")
        assert member.mode == 0o600
        assert (out / "how.json").stat().st_mode & 0o777 == 0o600


def test_files_by_platform(cli: Cli, tmp_path: Path) -> None:
    cli.build(
        *("--platform", "linux/amd64,linux/arm64", "--sbom=true", "-o", f"type=local,dest={tmp_path}/out"),
        small(tmp_path),
    )
    assert sorted(path.parent.name for path in tmp_path.glob("out/*/sbom.spdx.json")) == ["linux_amd64", "linux_arm64"]


def test_inline_only(cli: Cli, tmp_path: Path) -> None:
    cli.build(
        *("--provenance=inline-only=true", "-t", "x:1", "-o", f"type=local,dest={tmp_path}/out", "-o", "type=image"),
        *("-o", f"type=docker,dest={tmp_path}/d.tar", small(tmp_path)),
    )
    assert not (tmp_path / "out/provenance.json").exists()
    assert len(index(cli, "x:1")) == 2
    with tarfile.open(tmp_path / "d.tar") as saved:
        file = saved.extractfile("index.json")
        assert file is not None
        assert json.load(file)["manifests"][0]["mediaType"] == "application/vnd.oci.image.manifest.v1+json"


def test_a_docker_archive_is_refused(cli: Cli, tmp_path: Path) -> None:
    done = cli("build", "--sbom=true", "-o", f"type=docker,dest={tmp_path}/x.tar", small(tmp_path))
    assert done.status == 2
    assert "type=docker holds no index" in done.err
    assert not (tmp_path / "x.tar").exists()


def test_a_squashed_image(cli: Cli, tmp_path: Path) -> None:
    built = context(tmp_path / "context", "FROM scratch\nCOPY a /\nCOPY b /\n", a="1", b="2")
    cli.build("-t", "x:1", "--squash", "--provenance=true", built)
    metadata = provenance(cli, "x:1")["runDetails"]["metadata"]["buildkit_metadata"]
    assert "layers" not in metadata
    assert len(metadata["source"]["locations"]) == 2


# --- everything else works as with other images


def test_our_own_commands(cli: Cli, registry: FakeRegistry, tmp_path: Path) -> None:
    name = f"{registry.host}/x:1"
    name_in_purl = f"{quote(registry.host)}/x@1"
    cli.build(
        "-t", "x:1", "--sbom=true", "-o", f"type=image,name={name},push=true", "-o", "type=image", small(tmp_path)
    )
    for arguments in (
        ("images",), ("images", "--tree"), ("inspect", "x:1"), ("history", "x:1"),
        ("save", "x:1", "-o", tmp_path / "s.tar"), ("save", "--format", "oci", "x:1", "-o", tmp_path / "o.tar"),
        ("export", "x:1", "-o", tmp_path / "e.tar"), ("prune", "-f"),
    ):  # fmt: skip
        done = cli(*arguments)
        assert done.status == 0, (arguments, done.err)
    with tarfile.open(tmp_path / "s.tar") as saved:
        file = saved.extractfile("manifest.json")
        assert file is not None
        assert len(json.load(file)) == 1  # the attestation is no image to be loaded
    assert len(index(cli, "x:1")) == 2
    pushed = json.loads(registry.repositories["x"]["1"][1])["manifests"]
    assert len(pushed) == 2
    for statement in statements(cli, pushed[1]).values():
        assert [subject["name"].split("?")[0] for subject in statement["subject"]] == [f"pkg:docker/{name_in_purl}"]
    assert all(entry["digest"] in registry.repositories["x"] for entry in pushed)
    other = Cli(tmp_path / "other")
    built = context(tmp_path / "above", f"FROM {name}\nCOPY a /\n", a="1")
    other.build("-t", "y:1", built)
    assert other.files("y:1")["var/lib/dpkg/status"].content == STATUS.encode()


@pytest.mark.parametrize("artifact", ["true", "false"])
@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
def test_skopeo_and_podman(cli: Cli, registry: FakeRegistry, tmp_path: Path, artifact: str) -> None:
    saved = tmp_path / "x.tar"
    cli.build(
        *("--provenance=true", "--sbom=true", "-t", "x:1", "-o", f"type=oci,dest={saved},oci-artifact={artifact}"),
        *("-o", f"type=registry,name={registry.host}/x:1,oci-artifact={artifact}", small(tmp_path)),
    )
    for source in (f"oci-archive:{saved}", f"docker://{registry.host}/x:1"):
        copied = tmp_path / f"copied-{source[:3]}"
        subprocess.run(
            ["skopeo", "copy", "--quiet", "--all", "--src-tls-verify=false", source, f"oci:{copied}:x"], check=True
        )
        (entry,) = json.loads((copied / "index.json").read_text())["manifests"]
        entries = json.loads((copied / "blobs" / entry["digest"].replace(":", "/")).read_text())["manifests"]
        assert [one["platform"]["os"] for one in entries] == ["linux", "unknown"]
    single = tmp_path / "single"
    subprocess.run(["skopeo", "copy", "--quiet", f"oci-archive:{saved}", f"dir:{single}"], check=True)
    (layer,) = json.loads((single / "manifest.json").read_text())["layers"]
    with tarfile.open(fileobj=gzip.open(single / layer["digest"][7:])) as files:
        assert "var/lib/dpkg/status" in files.getnames()
