"""Which build checks are wanted, and where their findings are gathered while a Dockerfile is planned.

What is wanted comes from the `check` directive (or the build argument BUILDKIT_DOCKERFILE_CHECK in its place) and, for
one instruction, from a comment of the same form above it. The rules of precedence are those of BuildKit's
`linter.Linter`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from builder.dockerfile.instructions import Dockerfile, Range, Run
from builder.errors import DockerfileError
from builder.plan.steps import Finding

if TYPE_CHECKING:
    from builder.dockerfile.lines import CheckOptions
    from builder.plan.locate import Locator

ARGUMENT = "BUILDKIT_DOCKERFILE_CHECK"
"""The build argument that replaces the `check` directive."""

EXPERIMENTAL = frozenset(("InvalidDefinitionDescription",))
"""Rules that are reported on request only."""

SHELLCHECK = "ShellCheck"
"""The rules that ShellCheck's findings come under are `ShellCheck/SC2086` and so on; this name skips them all."""


HiddenSource = Callable[[], Callable[[str], bool] | None]


class RunSite:
    """A RUN that ShellCheck can look at: the SHELL that is in force, and the variables that are set."""

    def __init__(self, run: Run, shell: tuple[str, ...], names: frozenset[str]) -> None:
        self.run = run
        self.shell = shell
        self.names = names


class Checks:
    """Gathers findings. `hidden` gives, when first needed, what tells whether the ignore file hides a source of COPY or
    ADD (None: nothing is hidden for certain); with `scripts` the RUN instructions are noted for ShellCheck."""

    def __init__(
        self,
        options: CheckOptions | None = None,
        *,
        hidden: HiddenSource | None = None,
        scripts: bool = False,
    ) -> None:
        self._filter = _Filter()
        self._ends_build = False
        if options is not None:
            self._filter = self._filter.merged(options)
            self._ends_build = options.error
        self._scripts = scripts
        self._hidden = hidden
        self._hides: Callable[[str], bool] | None = None
        self.findings: list[Finding] = []
        self.runs: list[RunSite] = []

    def clear(self) -> None:
        """Forget what was found: a plan begins again when more images are known."""
        self.findings.clear()
        self.runs.clear()

    def wants(self, rule: str, comments: Iterable[str] = ()) -> bool:
        """Whether a rule is to be reported, for an instruction below `comments`."""
        return self._filter.with_comments(comments).wants(rule)

    def report(
        self, rule: str, message: str, where: Range | None, comments: Iterable[str] = (), column: int = 0
    ) -> None:
        """Note a finding unless it is not wanted. `comments` are those of the instruction that the check runs for."""
        if self.wants(rule, comments):
            self.findings.append(Finding(rule, message, where, column))

    def hides(self, path: str) -> bool:
        """Whether the ignore file certainly hides a source."""
        if self._hidden is not None:
            self._hides, self._hidden = self._hidden(), None
        return self._hides is not None and self._hides(path)

    @property
    def reads_scripts(self) -> bool:
        """Whether RUN instructions are kept for ShellCheck."""
        return self._scripts

    def note_run(self, run: Run, shell: Iterable[str], names: Iterable[str]) -> None:
        """Keep a RUN for ShellCheck, if that is wanted."""
        if self._scripts:
            self.runs.append(RunSite(run, tuple(shell), frozenset(names)))

    def violation(self, locate: Locator) -> DockerfileError | None:
        """The error that ends the build where `error=true` was given and something was found."""
        if not self._ends_build or not self.findings:
            return None
        rules = ", ".join(dict.fromkeys(finding.rule for finding in self.findings))
        return DockerfileError(
            f"lint violation found for rules: {rules}",
            details=tuple(
                f"    {place(finding, locate)}: {finding.rule}: {finding.message}" for finding in ordered(self.findings)
            ),
            remedy="mend these, or name the rule in a `# check=skip=RULE` comment above the instruction",
        )


def checks_for(
    dockerfile: Dockerfile,
    build_args: Mapping[str, str],
    *,
    hidden: HiddenSource | None = None,
    scripts: bool = False,
) -> Checks:
    """The checks that a Dockerfile, or the build argument BUILDKIT_DOCKERFILE_CHECK, asks for.

    Raises DockerfileError for a build argument that cannot be read.
    """
    text = next((d.value for d in dockerfile.directives if d.name == "check"), "")
    given = build_args.get(ARGUMENT)
    if given is None and not text:
        return Checks(hidden=hidden, scripts=scripts)
    from builder.dockerfile.lines import parse_check_directive, parse_check_options

    try:
        options = parse_check_directive(text) if given is None else parse_check_options(given)
    except DockerfileError as error:
        error.place = error.place or (None if given is None else f"--build-arg {ARGUMENT}")
        raise
    return Checks(options, hidden=hidden, scripts=scripts)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Findings in the order of the Dockerfile's lines."""
    return sorted(findings, key=lambda finding: (finding.range.start if finding.range else 0, finding.column))


def place(finding: Finding, locate: Locator) -> str | None:
    """`Dockerfile:7`, or `Dockerfile:7:12` where the column is known."""
    if finding.range is None:
        return None
    return locate.place(finding.range) + (f":{finding.column}" if finding.column else "")


class _Filter:
    """Which rules are skipped, and which experimental ones are reported."""

    def __init__(self) -> None:
        self.skip: frozenset[str] = frozenset()
        self.skip_all = False
        self.experimental: frozenset[str] = frozenset()
        self.experimental_all = False

    def wants(self, rule: str) -> bool:
        if rule in EXPERIMENTAL:
            # as in BuildKit, an experimental rule that was asked for is not skipped
            return self.experimental_all or rule in self.experimental
        return not self.skip_all and rule not in self.skip and rule.partition("/")[0] not in self.skip

    def merged(self, options: CheckOptions) -> _Filter:
        made = _Filter()
        made.skip = self.skip.union(options.skip)
        made.skip_all = self.skip_all or options.skip_all
        made.experimental = self.experimental.union(options.experimental)
        made.experimental_all = self.experimental_all or options.experimental_all
        return made

    def with_comments(self, comments: Iterable[str]) -> _Filter:
        """Only the first comment that is a check directive counts, and one that cannot be read does not."""
        for comment in comments:
            name, equals, value = comment.partition("=")
            if not equals or name.strip().lower() != "check" or not value.strip():
                continue
            from builder.dockerfile.lines import parse_check_directive

            try:
                return self.merged(parse_check_directive(value.strip()))
            except DockerfileError:
                return self
        return self
