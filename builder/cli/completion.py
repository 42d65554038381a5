"""`builder completion`: scripts that make shells complete command lines, and the answers to what these ask.

The mechanism is click's: the script calls builder with `_BUILDER_COMPLETE`, the line so far and the current word in the
environment. For bash the script is our own: click's does not know that bash cuts words at colons, which names of images
have.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import (
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)

from builder.cli.main import cli
from builder.cli.settings import COMPLETE

_BASH = """\
%(complete_func)s() {
    local type value line=${COMP_LINE:0:COMP_POINT} word=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            plain) COMPREPLY+=("$value") ;;
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
        esac
    done < <(COMP_WORDS=$line COMP_CWORD=$word %(complete_var)s=bash_complete "$1" 2>/dev/null)
    [[ ${COMPREPLY[0]-} == *[=,] ]] && compopt -o nospace
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Completion(ShellComplete):
    """Completes the current word, of which `_cut` characters are no part of what the shell replaces."""

    _cut = 0

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        head = ""
        if incomplete.startswith("--") and "=" in incomplete:  # what click completes is the value alone
            head = incomplete[: incomplete.index("=") + 1]
        return [
            CompletionItem((head + item.value)[self._cut :], item.type, item.help) if item.type == "plain" else item
            for item in super().get_completions(args, incomplete)
        ]


class _Bash(_Completion):
    name = "bash"
    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The line up to the cursor says what is complete; bash's current word begins after the last `:` or `=`."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not line[-1:].isspace() else ""
        word = os.environ["COMP_CWORD"]
        if not word.strip(":="):
            word = ""
        self._cut = len(incomplete) - len(word) if incomplete.endswith(word) else 0
        return words, incomplete

    def format_completion(self, item: CompletionItem[str]) -> str:
        return f"{item.type},{item.value}"


class _Zsh(_Completion, ZshComplete):
    pass


class _Fish(_Completion, FishComplete):
    source_template = FishComplete.source_template.replace('string split ","', 'string split -m 1 ","')
    """Click's, but for values with commas in them."""


_SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


def answer(instruction: str) -> int:
    """Print the candidates for what a shell asks (`bash_complete`); returns the exit status."""
    shell, _, what = instruction.partition("_")
    if shell not in _SHELLS or what != "complete":
        return 1
    from builder.cli.candidates import equip

    equip(cli)
    print(_SHELLS[shell](cli, {}, "builder", COMPLETE).complete())
    return 0


@click.command("completion", epilog='Example: eval "$(builder completion bash)"')
@click.argument("shell", type=click.Choice(list(_SHELLS)), metavar="bash|zsh|fish")
def command(shell: str) -> None:
    """Print a script that makes a shell complete commands, options, images, stages and more.

    Evaluate it in the shell's start-up file, or keep it where the shell looks: for bash
    ~/.local/share/bash-completion/completions/builder, for zsh a directory of $fpath (as _builder), for fish
    ~/.config/fish/completions/builder.fish.
    """
    print(_SHELLS[shell](cli, {}, "builder", COMPLETE).source(), end="")
