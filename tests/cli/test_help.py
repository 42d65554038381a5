"""Every command's help: there, with an example that is right, short, and all options in it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from builder.cli.help import SECTIONS
from builder.cli.main import COMMANDS, GROUPS, HELP, cli
from builder.cli.usage import describe
from tests.support.builds import PROJECT

WIDTH = 80


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """All commands with their names, `image ls` of groups too."""
    yield " ".join(path), group
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            below = group.get_command(context, name)
            assert below is not None, name
            yield from commands(below, (*path, name))


ALL = dict(commands(cli))


def shown(name: str, width: int = WIDTH) -> str:
    arguments = [*name.split(), "--help"]
    done = CliRunner().invoke(cli, arguments, prog_name="builder", terminal_width=width)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", ALL)
def test_the_help(name: str) -> None:
    text = shown(name)
    lines = text.splitlines()
    command = ALL[name]
    assert command.help, "no help"
    assert max(map(len, lines)) <= WIDTH
    examples = [line for line in lines if line.strip().startswith("Example: ")]
    assert len(examples) == 1, "an example in one line"
    check_example(examples[0].strip().removeprefix("Example: "))
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{parameter.opts} is not explained"
            assert parameter.opts[-1] in text
    if isinstance(command, click.Group):
        assert not re.search(r"^  .*\.\.\.$", text, re.MULTILINE), "a summary is cut"
    length = 110 if name.split()[-1:] in (["build"], ["plan"]) else 80 if not name else 40
    assert len(lines) <= length, "too long"


def check_example(example: str) -> None:
    """Each `builder …` in a line of shell must be understood."""
    words = shlex.shlex(example.replace('"$(', "").replace(')"', ""), posix=True, punctuation_chars="|;<>&")
    words.whitespace_split = True
    found = 0
    for command in "\0".join(words).replace("\0|\0", "\0;\0").split("\0;\0"):
        name, *arguments = command.split("\0")
        if name == "eval":
            name, *arguments = arguments
        if name == "builder":
            found += 1
            parse(cli, name, arguments)
    assert found, example


def parse(command: click.Command, name: str, arguments: list[str], parent: click.Context | None = None) -> None:
    context = command.make_context(name, list(arguments), parent=parent)
    if isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
        below, found, others = command.resolve_command(context, rest)
        assert found is not None
        parse(found, below or "", others, context)


@pytest.mark.parametrize("example", ["builder build --no-such-option .", "builder rmi", "builder bild .", "skopeo x"])
def test_a_wrong_example_is_found(example: str) -> None:
    with pytest.raises((click.UsageError, AssertionError)):
        check_example(example)


def test_the_commands_are_in_groups() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(COMMANDS) == sorted(HELP)
    text = shown("")
    positions = [text.index(f"\n{title}:\n") for title in GROUPS]
    assert positions == sorted(positions)
    assert "Other commands" not in text
    assert "Exit status: 0 done, 1 failed or refused, 2 wrong usage, 130 interrupted" in text


@pytest.mark.parametrize("name", ["build", "plan"])
def test_the_options_of_a_build_are_in_sections(name: str) -> None:
    named = [parameter for names in SECTIONS.values() for parameter in names]
    assert len(named) == len(set(named))
    options = {p.name for p in ALL[name].params if isinstance(p, click.Option) and not p.hidden}
    assert options <= set(named), "name them in builder.cli.help"
    assert set(named) <= {p.name for known in ("build", "plan") for p in ALL[known].params}
    text = shown(name)
    for title, names in SECTIONS.items():
        assert (f"\n{title}:\n" in text) == bool(options & set(names))


@pytest.mark.parametrize("name", ["", "images", "diff"])
def test_narrow_terminals(name: str) -> None:
    long = [line for line in shown(name, 50).splitlines() if len(line) > 50]
    assert [line for line in long if not line.strip().startswith("-")] == [], (
        "only an option and its value may be wider"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bulid", "."], "builder: no such command 'bulid'\nhelp: did you mean build or builds?"),
        (["xyzzy"], "builder: no such command 'xyzzy'\nhelp: 'builder --help' lists the commands"),
        (["image", "lss"], "builder image: no such command 'lss'\nhelp: did you mean ls?"),
        (["build", "--xyzzy", "."], "builder build: no such option '--xyzzy'\nhelp: 'builder build --help' lists the"),
        (
            ["build", "--resource-group=x", "."],
            "builder build: no such option '--resource-group'\nhelp: 'builder build --h",
        ),
        (["rmi"], "builder rmi: IMAGE… is missing\nhelp: write builder rmi [OPTIONS] IMAGE…"),
        (["du", "extra"], "builder du: got unexpected extra argument (extra)\nhelp: write builder du [OPTIONS]"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    with pytest.raises(click.ClickException) as caught:
        cli.main(arguments, prog_name="builder", standalone_mode=False)
    assert describe(caught.value).startswith(f"error: {message}")


def test_help_loads_no_commands() -> None:
    code = (
        "import sys, builder.cli.main as m\ntry: m.cli(['--help'])\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    )
    environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert "'builder.cli.main'" in loaded
    for module in ("builder.cli.build", "builder.cli.images", "builder.store.store", "httpx", "tqdm"):
        assert f"'{module}'" not in loaded
