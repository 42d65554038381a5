"""Finding here-documents in a command line (`<<EOF`, `<<-EOF`, `3<<"EOF"`), as BuildKit's parser/parser.go does."""

from __future__ import annotations

import re

from builder.dockerfile.instructions import Heredoc
from builder.dockerfile.words import expand_words, parse_word
from builder.errors import DockerfileError

_HEREDOC = r"([0-9]*)<<(-?)[\t\n\f\r ]*([^<]*)\Z"
_LEADING_TABS = r"(?m)^\t+"
_LARGEST_DESCRIPTOR = 1 << 31


def find_heredocs(line: str) -> tuple[Heredoc, ...]:
    """The here-documents that a command line begins, in their order, still without content.

    The line is split like a shell's; one that cannot be (an open quote) has none. The escape character is always the
    backslash here, whatever the Dockerfile's is. Raises DockerfileError for a delimiter that cannot be read.
    """
    if "<<" not in line:
        return ()
    try:
        words = expand_words(parse_word(line, mode="line"), {}, keep_unset=True)
    except DockerfileError:
        return ()
    return tuple(heredoc for word in words if (heredoc := parse_heredoc(word)))


def parse_heredoc(word: str) -> Heredoc | None:
    """The here-document that `word` begins, None when it is something else.

    Raises DockerfileError for a delimiter with a malformed variable or an open quote.
    """
    match = re.match(_HEREDOC, word)
    if not match or not match[3]:
        return None
    names = expand_words(parse_word(match[3]), {}, keep_unset=True)
    if len(names) != 1:
        return None
    (name,) = names
    raw = "".join(expand_words(parse_word(match[3], mode="shown"), {}, keep_unset=True))
    return Heredoc(
        name=name,
        content="",
        expand=_quotes(name) == _quotes(raw),
        chomp=match[2] == "-",
        descriptor=min(int(match[1][:12] or "0"), _LARGEST_DESCRIPTOR),
    )


def is_heredoc(word: str) -> Heredoc | None:
    """`parse_heredoc`, where a delimiter that cannot be read is none."""
    if "<<" not in word:  # most sources of a COPY; expressions need not be loaded for them
        return None
    try:
        return parse_heredoc(word)
    except DockerfileError:
        return None


def chomp_tabs(text: str) -> str:
    """The text without the tabs that its lines begin with (`<<-`)."""
    return re.sub(_LEADING_TABS, "", text)


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')
