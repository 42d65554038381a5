"""Build checks: what a Dockerfile's plan reports. The cases follow what BuildKit's own tests expect of each rule.

A case in testdata/checks holds a Dockerfile and expected.toml: the findings in the order of their lines, and optionally
`args`, `target`, `platform`, `all_stages`, `ignore` (an ignore file's text), `images` (platforms of base images that
are not linux/amd64), `error` and `help` (part of the error's cause, its remedy).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from builder.context.ignore import compile_rules
from builder.dockerfile.parser import parse
from builder.errors import BuilderError
from builder.oci.platform import parse_platform
from builder.oci.spec import ContainerConfig, ImageConfig, Platform
from builder.plan.checks import hides_source
from builder.plan.findings import Checks, checks_for, ordered, place
from builder.plan.locate import Locator
from builder.plan.options import PlanOptions
from builder.plan.planner import plan
from builder.plan.rules import RULES, rule
from builder.plan.steps import Finding, ImageKey, Missing

CASES = Path(__file__).parents[2] / "testdata" / "checks"
HOST = Platform("linux", "amd64")
NAMES = sorted(path.parent.name for path in CASES.glob("*/expected.toml"))


def outcome(text: bytes, case: dict[str, Any]) -> tuple[list[Finding], BuilderError | None]:
    """What is found in a Dockerfile, and the error that ended its plan."""
    dockerfile = parse(text)
    locate = Locator("Dockerfile", text.decode())
    options = PlanOptions(
        host=HOST,
        build_args=case.get("args", {}),
        platforms=(parse_platform(case["platform"]),) if "platform" in case else (),
        target=case.get("target", ""),
        all_stages=case.get("all_stages", False),
    )
    rules = compile_rules(case["ignore"]) if "ignore" in case else None
    try:
        checks = checks_for(dockerfile, options.build_args, hidden=lambda: hides_source(rules))
    except BuilderError as error:
        return [], error
    images: dict[ImageKey, ImageConfig] = {}
    try:
        while isinstance(missing := plan(dockerfile, options, images, locate, checks), Missing):
            images |= {key: _image(key, case.get("images", {})) for key in missing.images}
    except BuilderError as error:
        return ordered(checks.findings), error
    assert list(missing.findings) == ordered(checks.findings)
    return ordered(checks.findings), checks.violation(locate)


def _image(key: ImageKey, platforms: dict[str, str]) -> ImageConfig:
    found = parse_platform(platforms.get(key.reference, "linux/amd64"))
    config = ContainerConfig(env=["PATH=/bin"], working_dir="/")
    return ImageConfig(architecture=found.architecture, os=found.os, variant=found.variant, config=config)


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str) -> None:
    case = tomllib.loads((CASES / name / "expected.toml").read_text(encoding="utf-8"))
    findings, error = outcome((CASES / name / "Dockerfile").read_bytes(), case)
    expected = [(finding["line"], finding["rule"], finding["message"]) for finding in case.get("finding", [])]
    assert [(f.range.start if f.range else 0, f.rule, f.message) for f in findings] == expected
    if "error" in case:
        assert error is not None
        assert case["error"] in error.cause
        assert case.get("help") in (None, error.remedy)
    elif error is not None:
        raise error


def test_every_rule_has_a_case_that_finds_it() -> None:
    found = set()
    for name in NAMES:
        case = tomllib.loads((CASES / name / "expected.toml").read_text(encoding="utf-8"))
        found |= {finding["rule"] for finding in case.get("finding", [])}
    assert found == set(RULES)


def test_rules_have_pages() -> None:
    assert rule("JSONArgsRecommended").url == "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
    assert rule("FromAsCasing").url == "https://docs.docker.com/go/dockerfile/rule/from-as-casing/"
    assert rule("InvalidBaseImagePlatform").url == ""
    assert rule("ShellCheck/SC2086").url == "https://www.shellcheck.net/wiki/SC2086"
    assert all(rule(name).description for name in RULES)


def test_only_the_first_platform_is_checked() -> None:
    dockerfile = parse("FROM scratch\nENV a b\n")
    options = PlanOptions(host=HOST, platforms=(HOST, Platform("linux", "arm64")))
    planned = plan(dockerfile, options, {}, Locator("Dockerfile", ""))
    assert not isinstance(planned, Missing)
    assert [finding.rule for finding in planned.findings] == ["LegacyKeyValueFormat"]


def test_a_violation_names_the_places() -> None:
    findings, error = outcome(b"# check=error=true\nFROM scratch\nENV a b\n", {})
    assert len(findings) == 1
    assert error is not None
    assert error.cause == "lint violation found for rules: LegacyKeyValueFormat"
    assert error.details[0].strip().startswith("Dockerfile:3: LegacyKeyValueFormat: ")


def test_the_place_of_a_finding() -> None:
    dockerfile = parse("FROM scratch\n")
    locate = Locator("sub/Dockerfile", "")
    where = dockerfile.stages[0].from_.range
    assert place(Finding("A", "b", where), locate) == "sub/Dockerfile:1"
    assert place(Finding("A", "b", where, 7), locate) == "sub/Dockerfile:1:7"
    assert place(Finding("A", "b"), locate) is None


@pytest.mark.parametrize(
    ("comment", "rule_name", "wanted"),
    [
        ("check=skip=UndefinedVar", "UndefinedVar", False),
        ("check=skip=UndefinedVar // because", "UndefinedVar", False),
        ("CHECK = skip=all", "UndefinedVar", False),
        ("check=skip=Other,UndefinedVar", "UndefinedVar", False),
        ("check=skip=Other", "UndefinedVar", True),
        ("check=error=false", "UndefinedVar", True),
        ("check=nonsense", "UndefinedVar", True),
        ("checks=skip=all", "UndefinedVar", True),
        ("see check=skip=all", "UndefinedVar", True),
        ("check=skip=ShellCheck", "ShellCheck/SC2086", False),
        ("check=skip=ShellCheck/SC2086", "ShellCheck/SC2086", False),
        ("check=skip=ShellCheck/SC2086", "ShellCheck/SC2087", True),
        ("check=experimental=all", "InvalidDefinitionDescription", True),
        ("", "InvalidDefinitionDescription", False),
    ],
)
def test_comments(comment: str, rule_name: str, wanted: bool) -> None:
    assert Checks().wants(rule_name, (comment,)) is wanted
