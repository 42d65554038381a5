"""What `--metadata-file` holds."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from builder.api.options import BuildResult
from builder.cli.metadata import metadata, wanted_provenance
from builder.oci.spec import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from builder.progress import Warned
from tests.support.builds import Cli, context


def test_metadata() -> None:
    result = BuildResult(image_id="sha256:1", digest="sha256:2", media_type="m", size=3, tags=("a:1", "b:1"))
    document = json.loads(metadata(result, {}))
    assert document["containerimage.digest"] == "sha256:2"
    assert document["containerimage.config.digest"] == "sha256:1"
    assert document["containerimage.descriptor"] == {"mediaType": "m", "digest": "sha256:2", "size": 3}
    assert document["image.name"] == "a:1,b:1"
    assert json.loads(metadata(BuildResult(), {})) == {}
    assert json.loads(metadata(BuildResult(build="b1"), {})) == {"buildx.build.ref": "b1"}


@pytest.mark.parametrize(
    ("media_type", "platforms", "platform"),
    [
        (OCI_MANIFEST, ("linux/amd64",), {"architecture": "amd64", "os": "linux"}),
        (OCI_MANIFEST, ("linux/arm/v7",), {"architecture": "arm", "os": "linux", "variant": "v7"}),
        (DOCKER_MANIFEST, ("linux/arm64",), {"architecture": "arm64", "os": "linux"}),
        (OCI_INDEX, ("linux/amd64",), None),
        (OCI_INDEX, ("linux/amd64", "linux/arm64"), None),
    ],
)
def test_metadata_of_one_image_has_its_platform(
    media_type: str, platforms: tuple[str, ...], platform: dict[str, str] | None
) -> None:
    result = BuildResult(image_id="i", digest="d", media_type=media_type, size=3, platforms=platforms)
    assert json.loads(metadata(result, {}))["containerimage.descriptor"].get("platform") == platform


@pytest.mark.parametrize(("variable", "told"), [("1", True), ("True", True), ("", False), ("0", False), ("yes", False)])
def test_warnings_are_told_if_a_variable_says_so(variable: str, told: bool) -> None:
    warned = Warned("odd", place="Dockerfile:3", rule="StageNameCasing")
    found = json.loads(metadata(BuildResult(warnings=(warned,)), {"BUILDX_METADATA_WARNINGS": variable}))
    assert ("buildx.build.warnings" in found) is told
    if told:
        (warning,) = found["buildx.build.warnings"]
        assert base64.b64decode(warning["short"]) == b"StageNameCasing: odd (line 3)"
        assert warning["sourceInfo"]["filename"] == "Dockerfile"
        assert warning["range"] == [{"start": {"line": 3}, "end": {"line": 3}}]


PROVENANCE = {
    "": "min",
    "min": "min",
    "other": "min",
    "true": "min",
    "max": "max",
    "disabled": "",
    "0": "",
    "false": "",
}


@pytest.mark.parametrize("variable", PROVENANCE)
def test_how_much_provenance_is_told(variable: str) -> None:
    assert wanted_provenance({"BUILDX_METADATA_PROVENANCE": variable}) == PROVENANCE[variable]
    assert wanted_provenance({}) == "min"


@pytest.mark.parametrize("output", ["type=image", "type=cacheonly", "type=local,dest=out"])
@pytest.mark.parametrize("mode", ["min", "max", "disabled"])
def test_the_metadata_tell_how_an_image_was_made(
    cli: Cli, tmp_path: Path, mode: str, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In SLSA's words of version 0.2, which is what buildx writes; attestations are the image's own matter."""
    monkeypatch.chdir(tmp_path)
    made = context(tmp_path / "context", "FROM scratch\nARG A\nARG PASSWORD\nCOPY a /\n", a="a")
    arguments = ("--build-arg=A=1", "--build-arg=PASSWORD=hidden", "--metadata-file", "about", "-o", output, made)
    cli.build(*arguments, environ={"BUILDX_METADATA_PROVENANCE": mode})
    found = json.loads((tmp_path / "about").read_text())
    assert "hidden" not in str(found)
    if mode == "disabled":
        assert "buildx.build.provenance" not in found
        return
    told = found["buildx.build.provenance"]
    assert told["buildType"] == "https://mobyproject.org/buildkit@v1"
    assert told["invocation"]["parameters"]["args"]["build-arg:A"] == "1"
    assert ("buildConfig" in told, "metadata" in told) == (mode == "max", mode == "max")


def test_the_metadata_tell_of_each_platform(cli: Cli, tmp_path: Path) -> None:
    made = context(tmp_path / "context", "FROM scratch\nCOPY a /\n", a="a")
    cli.build("--metadata-file", tmp_path / "about", "--platform=linux/amd64,linux/arm64", made)
    found = json.loads((tmp_path / "about").read_text())
    assert [key.partition("/")[2] for key in found if "provenance" in key] == ["linux/amd64", "linux/arm64"]


def test_the_metadata_of_a_build_lead_to_its_record(cli: Cli, tmp_path: Path) -> None:
    made = context(tmp_path / "context", "FROM scratch AS Upper\nCOPY a /\n", a="a")
    cli.build("--metadata-file", tmp_path / "about", made, environ={"BUILDX_METADATA_WARNINGS": "true"})
    found = json.loads((tmp_path / "about").read_text())
    assert cli("builds", "-q").out.decode().split() == [found["buildx.build.ref"]]
    assert [warning["rule"] for warning in found["buildx.build.warnings"]] == ["StageNameCasing"]
