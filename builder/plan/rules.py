"""The build checks by name: BuildKit's names, their descriptions and where they are documented (linter/ruleset.go)."""

from __future__ import annotations

import re

import msgspec

_DOCUMENTATION = "https://docs.docker.com/go/dockerfile/rule"
_SHELLCHECK = "https://www.shellcheck.net/wiki"
_BOUNDARY = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_DESCRIPTIONS = {
    "StageNameCasing": "Stage names should be lowercase",
    "FromAsCasing": "The 'as' keyword should match the case of the 'from' keyword",
    "NoEmptyContinuation": "Empty continuation lines will become errors in a future release",
    "ConsistentInstructionCasing": (
        "All commands within the Dockerfile should use the same casing (either upper or lower)"
    ),
    "DuplicateStageName": "Stage names should be unique",
    "ReservedStageName": "Reserved words should not be used as stage names",
    "JSONArgsRecommended": (
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
    ),
    "MaintainerDeprecated": ("The MAINTAINER instruction is deprecated, use a label instead to define an image author"),
    "UndefinedArgInFrom": "FROM command must use declared ARGs",
    "WorkdirRelativePath": (
        "Relative workdir without an absolute workdir declared within the build can have unexpected results"
        " if the base image changes"
    ),
    "UndefinedVar": "Variables should be defined before their use",
    "MultipleInstructionsDisallowed": "Multiple instructions of the same type should not be used in the same stage",
    "LegacyKeyValueFormat": "Legacy key/value format with whitespace separator should not be used",
    "InvalidBaseImagePlatform": "Base image platform does not match expected target platform",
    "RedundantTargetPlatform": (
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
    ),
    "SecretsUsedInArgOrEnv": "Sensitive data should not be used in the ARG or ENV commands",
    "InvalidDefaultArgInFrom": "Default value for global ARG results in an empty or invalid base image name",
    "FromPlatformFlagConstDisallowed": "FROM --platform flag should not use a constant value",
    "CopyIgnoredFile": "Attempting to Copy file that is excluded by .dockerignore",
    "InvalidDefinitionDescription": (
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is"
        " not intended to be a description comment, add an empty line or comment between the instruction and the"
        " comment."
    ),
    "ExposeProtoCasing": "Protocol in EXPOSE instruction should be lowercase",
    "ExposeInvalidFormat": (
        "IP address and host-port mapping should not be used in EXPOSE instruction."
        " This will become an error in a future release"
    ),
}

RULES = tuple(_DESCRIPTIONS)
"""The names of all rules."""


class Rule(msgspec.Struct, frozen=True):
    """A rule's `name`, what it is about, and the page that explains it ('' where there is none)."""

    name: str
    description: str
    url: str


def rule(name: str) -> Rule:
    """The rule called `name`; those of ShellCheck are called `ShellCheck/SC2086`."""
    if name.startswith("ShellCheck/"):
        return Rule(name, "ShellCheck's opinion of a RUN script", f"{_SHELLCHECK}/{name.partition('/')[2]}")
    if name == "InvalidBaseImagePlatform":
        return Rule(name, _DESCRIPTIONS[name], "")
    return Rule(name, _DESCRIPTIONS[name], f"{_DOCUMENTATION}/{_BOUNDARY.sub('-', name).lower()}/")


def find_rule(name: str) -> Rule | None:
    """The rule called `name`, None if there is none."""
    return rule(name) if name in _DESCRIPTIONS or name.startswith("ShellCheck/") else None
