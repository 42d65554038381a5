"""`builder build --check` and `--call`: what is printed, the exit status, the JSON of docker buildx."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.cli.call import Call, parse_call
from builder.errors import UsageError
from tests.support.builds import Cli, context
from tests.support.registry import FakeRegistry

URL = "https://docs.docker.com/go/dockerfile/rule"
BAD = "FROM scratch as base\ncopy a /"
OUTLINE = """\
# ver is the version
ARG ver=1
FROM scratch AS base
RUN --mount=type=secret,id=key,required --mount=type=ssh --mount=type=cache,target=/cache true
# app is the program
FROM base AS app
ARG ver
# mode of it
ARG mode=fast
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[FakeRegistry]:
    """Stands in for docker.io."""
    with FakeRegistry() as served:
        text = f'[registry."docker.io"]\nmirrors = ["{served.host}"]\n[registry."{served.host}"]\nhttp = true\n'
        (tmp_path / "builder.toml").write_text(text)
        yield served


def document(out: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out)
    return found


def at(line: int) -> dict[str, Any]:
    """A location of one line, in BuildKit's form."""
    return {"ranges": [{"start": {"line": line}, "end": {"line": line}}]}


def test_no_warnings(cli: Cli, tmp_path: Path) -> None:
    done = cli("build", "--check", context(tmp_path / "c", "FROM scratch\nCOPY a /\n"))
    assert (done.status, done.out) == (0, b"Check complete, no warnings found.\n")


def test_warnings_as_docker_prints_them(cli: Cli, tmp_path: Path) -> None:
    place = context(tmp_path / "c", BAD)
    done = cli("build", "--check", "-t", "x", place)
    assert done.status == 1
    assert (
        done.out.decode()
        == f"""\
Check complete, 2 warnings have been found!

WARNING: FromAsCasing - {URL}/from-as-casing/
'as' and 'FROM' keywords' casing do not match
{place}/Dockerfile:1
--------------------
   1 | >>> FROM scratch as base
   2 |     copy a /
--------------------

WARNING: ConsistentInstructionCasing - {URL}/consistent-instruction-casing/
Command 'copy' should match the case of the command majority (uppercase)
{place}/Dockerfile:2
--------------------
   1 |     FROM scratch as base
   2 | >>> copy a /
--------------------
"""
    )
    assert cli.entries() == {}


def test_one_warning(cli: Cli, tmp_path: Path) -> None:
    context(tmp_path / "c", "", sub__file="FROM scratch as base\nCOPY a \\\n  b /\n")
    done = cli("build", "--call=check", "-f", tmp_path / "c/sub/file", tmp_path / "c")
    assert done.status == 1
    assert done.out.decode().startswith("Check complete, 1 warning has been found!\n\nWARNING: FromAsCasing - ")
    assert f"\n{tmp_path}/c/sub/file:1\n" in done.out.decode()


def test_json(cli: Cli, tmp_path: Path) -> None:
    place = context(tmp_path / "c", BAD)
    done = cli("build", "--call=check,format=json", "--metadata-file", tmp_path / "m", place)
    assert done.status == 1
    found = document(done.out)
    assert found["warnings"][0] == {
        "ruleName": "FromAsCasing",
        "description": "The 'as' keyword should match the case of the 'from' keyword",
        "url": f"{URL}/from-as-casing/",
        "detail": "'as' and 'FROM' keywords' casing do not match",
        "location": at(1),
    }
    assert len(found["warnings"]) == 2
    data = base64.b64encode(BAD.encode()).decode()
    assert found["sources"] == [{"filename": f"{place}/Dockerfile", "data": data, "language": "Dockerfile"}]
    assert "buildError" not in found
    assert json.loads((tmp_path / "m").read_text()) == {"result.json": found}


def test_json_without_warnings(cli: Cli, tmp_path: Path) -> None:
    done = cli("build", "--call=check,format=json", context(tmp_path / "c", "FROM scratch\nCOPY a /\n"))
    assert done.status == 0
    assert document(done.out)["warnings"] is None


def test_ignored_status(cli: Cli, tmp_path: Path) -> None:
    done = cli("build", "--call=check,ignorestatus=true", context(tmp_path / "c", BAD))
    assert done.status == 0
    assert b"2 warnings" in done.out


def test_errors_come_after_the_warnings(cli: Cli, tmp_path: Path) -> None:
    place = context(tmp_path / "c", "FROM scratch AS Bad\nMAINTAINER me\nBADCMD\n")
    done = cli("build", "--check", place)
    assert done.status == 1
    assert [line for line in done.out.decode().splitlines() if line.startswith("WARNING")] == [
        f"WARNING: StageNameCasing - {URL}/stage-name-casing/",
        f"WARNING: MaintainerDeprecated - {URL}/maintainer-deprecated/",
    ]
    assert f"error: {place}/Dockerfile:3: unknown instruction: BADCMD" in done.err
    done = cli("build", "--call=check,format=json", place)
    assert done.status == 1
    assert document(done.out)["buildError"] == {"message": "unknown instruction: BADCMD", "location": at(3)}


def test_a_violation_ends_a_build(cli: Cli, tmp_path: Path) -> None:
    place = context(tmp_path / "c", "# check=error=true\n" + BAD, a="a")
    for option in ("--call=build", "--check"):
        done = cli("build", option, place)
        assert done.status == 1
        assert "error: lint violation found for rules: FromAsCasing, ConsistentInstructionCasing\n" in done.err
        assert "Dockerfile:3: ConsistentInstructionCasing: Command 'copy'" in done.err
    assert cli.entries() == {}
    argument = "BUILDKIT_DOCKERFILE_CHECK=skip=ConsistentInstructionCasing"
    done = cli.build("--build-arg", argument, place)
    assert "WARNING: Dockerfile:2: FromAsCasing: 'as' and 'FROM'" in done.err
    assert "nothing uses it" not in done.err
    assert "ConsistentInstructionCasing" not in done.err


def test_a_build_warns(cli: Cli, tmp_path: Path) -> None:
    done = cli.build(context(tmp_path / "c", "FROM scratch\nENV a b\nCOPY a /\n", a="1"))
    assert 'WARNING: Dockerfile:2: LegacyKeyValueFormat: "ENV key=value" should be used' in done.err
    ignored = context(tmp_path / "d", "FROM scratch\nCOPY b /\n", **{"b": "1", ".dockerignore": "b"})
    done = cli("build", ignored)
    assert done.status == 1
    assert 'Dockerfile:2: CopyIgnoredFile: Attempting to Copy file "b" that is excluded' in done.err


def test_base_images_are_looked_up_but_not_pulled(cli: Cli, tmp_path: Path, registry: FakeRegistry) -> None:
    registry.add_image("library/base", "latest", layers=(b"not even an archive",))
    done = cli("build", "--check", context(tmp_path / "c", "FROM base\nENV a=$PATH\nRUN true\nFROM scratch\n"))
    assert done.status == 0, done.err + done.out.decode()
    assert registry.count(r"GET .*/manifests/latest") >= 1
    assert registry.count(r"GET .*/blobs/") == 1  # the configuration
    assert cli.entries() == {}


def test_what_a_target_does_not_need_is_not_looked_up(cli: Cli, tmp_path: Path, registry: FakeRegistry) -> None:
    place = context(tmp_path / "c", "FROM nowhere AS other\nFROM scratch AS wanted\nENV a b\n")
    done = cli("build", "--check", "--target=wanted", place)
    assert done.status == 1
    assert b"1 warning has" in done.out
    assert "nowhere" not in done.err
    done = cli("build", "--check", place)
    assert done.status == 1
    assert "Dockerfile:1" in done.err
    assert "nowhere" in done.err


@pytest.mark.parametrize(
    ("dockerfile", "hint"),
    [
        ("FROM scratch AS build\nFROM scratch\nCOPY --from=biuld / /\n", "did you mean the stage build?"),
        ("FROM scratch AS build\nFROM bulid\nCOPY a /\n", "did you mean the stage build?"),
        ("FROM scratch AS build\nFROM scratch\nRUN --mount=from=buidl true\n", "did you mean the stage build?"),
        ("FROM scratch AS build\nFROM alpin:3.20\n", "did you mean alpine?"),
        ("ARG VERSION\nFROM --platform=$BUILDPLATFROM scratch\n", "did you mean BUILDPLATFORM?"),
    ],
)
def test_misspelt_stages(cli: Cli, tmp_path: Path, registry: FakeRegistry, dockerfile: str, hint: str) -> None:
    done = cli("build", context(tmp_path / "c", dockerfile))
    assert done.status == 1
    assert f"help: {hint}" in done.err
    assert "Dockerfile:" in done.err


def test_a_misspelt_target(cli: Cli, tmp_path: Path) -> None:
    done = cli("build", "--target=biuld", context(tmp_path / "c", "FROM scratch AS build\nFROM scratch\n"))
    assert done.status == 1
    assert "help: did you mean build?" in done.err


def test_unused_arguments(cli: Cli, tmp_path: Path) -> None:
    place = context(tmp_path / "c", "ARG VERSION=1\nFROM scratch AS a\nARG ELSE\nFROM scratch\nCOPY a /\n", a="a")
    done = cli.build(*(f"--build-arg={pair}" for pair in ("version=2", "VERSOIN=3", "ELSE=4", "zzz=5")), place)
    assert "'version' was given, but nothing uses it; did you mean VERSION?" in done.err
    assert "'VERSOIN' was given, but nothing uses it; did you mean VERSION?" in done.err
    assert "'ELSE' was given, but no stage that is built uses it" in done.err
    assert "'zzz' was given, but nothing uses it\n" in done.err


def test_outline(cli: Cli, tmp_path: Path) -> None:
    done = cli("build", "--call=outline", context(tmp_path / "c", OUTLINE))
    assert done.status == 0
    assert (
        done.out.decode()
        == """\
TARGET:      app
DESCRIPTION: is the program

BUILD ARG   VALUE   DESCRIPTION
ver         1       is the version
mode        fast    of it

SECRET   REQUIRED
key      true

SSH       REQUIRED
default

CACHE
/cache

"""
    )


def test_outline_json(cli: Cli, tmp_path: Path) -> None:
    place = context(tmp_path / "c", OUTLINE)
    done = cli("build", "--call=outline,format=json", "--build-arg=ver=2", place)
    assert done.status == 0
    assert document(done.out) == {
        "name": "app",
        "description": "is the program",
        "args": [
            {"name": "ver", "value": "2", "location": at(7)},
            {"name": "mode", "description": "of it", "value": "fast", "location": at(9)},
        ],
        "secrets": [{"name": "key", "required": True, "location": at(4)}],
        "ssh": [{"name": "default", "location": at(4)}],
        "cache": [{"ID": "/cache", "location": at(4)}],
        "sources": [base64.b64encode(OUTLINE.encode()).decode()],
    }


def test_targets(cli: Cli, tmp_path: Path) -> None:
    place = context(tmp_path / "c", OUTLINE)
    done = cli("build", "--call=targets", place)
    assert done.status == 0
    assert done.out.decode() == "TARGET        DESCRIPTION\nbase\napp (default) is the program\n"
    done = cli("build", "--call=targets,format=json", place)
    targets = document(done.out)["targets"]
    assert [target["name"] for target in targets] == ["base", "app"]
    assert targets[1] == {
        "name": "app",
        "default": True,
        "description": "is the program",
        "base": "base",
        "location": at(6),
    }


def test_standard_input(cli: Cli) -> None:
    done = cli("build", "--check", "-", stdin=b"FROM scratch\nENV a b\n")
    assert done.status == 1
    assert b"\nDockerfile:2\n" in done.out


@pytest.mark.parametrize(
    ("text", "check", "expected"),
    [
        ("build", False, None),
        ("build", True, Call("check")),
        ("check", True, Call("check")),
        ("lint,format=json", False, Call("check", True)),
        ("format=json,targets", False, Call("targets", True)),
        ("check,ignorestatus=true", False, Call("check", False, True)),
        ("check,format=json", True, Call("check", True)),
    ],
)
def test_methods(text: str, check: bool, expected: Call | None) -> None:
    assert parse_call(text, check) == expected


@pytest.mark.parametrize("text", ["chek", "check,outline", "check,format=xml", "check,colour=red", "outline"])
def test_wrong_methods(text: str) -> None:
    with pytest.raises(UsageError):
        parse_call(text, check=True)


def test_a_wrong_method_is_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    done = cli("build", "--call=targes", context(tmp_path / "c", BAD))
    assert done.status == 2
    assert "did you mean targets?" in done.err
