"""What an ignore file hides: the rules of `.dockerignore`, of `.containerignore` and of `COPY --exclude`.

A rule matches a path or one of the directories above it; of all rules that match, the last one decides; a rule with `!`
keeps instead of hiding. The semantics are those of BuildKit's walk (`MatchesUsingParentResults` of
moby/patternmatcher): whether a directory matched a rule is remembered for what is below it, but a rule that could not
change the directory's own fate is not looked at, and so not remembered. This differs from looking at each path alone.

Compiling is apart from matching: `Rules` can be kept in a cache (msgspec encodes it), and a `Matcher` made from it
needs only `re`.
"""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
import os
import re
import stat
from collections.abc import Callable, Iterable

import msgspec

from builder.errors import ContextError

DEFAULT_NAME = ".dockerignore"
OF_CONTEXT = (".containerignore", DEFAULT_NAME)
"""The ignore files at the root of a context, the first one that is there counts (buildah's pkg/parse)."""
OF_DOCKERFILE = (DEFAULT_NAME, ".containerignore")
"""What the name of a Dockerfile's own ignore file ends with: first as BuildKit has it, then as buildah alone has it."""
_MAX_SIZE = 16 << 20


class Rule(msgspec.Struct, frozen=True, array_like=True):
    """One pattern. `regex` is anchored at both ends; `negated` when it keeps what it matches; `line` counts from 1 in
    the file (or list) that it stands in, `text` is the line as written; `prefix` is the path that all matches start
    with, if the pattern is a plain path, perhaps with `/*` or `/**` at its end, and None otherwise."""

    regex: str
    negated: bool
    line: int
    text: str
    prefix: str | None


class Rules(msgspec.Struct, frozen=True, array_like=True):
    """The rules of one ignore file in their order; `source` is the file's name for messages."""

    rules: tuple[Rule, ...] = ()
    source: str = DEFAULT_NAME


class IgnoreFile(msgspec.Struct, frozen=True):
    """An ignore file's name as people know it, and its text."""

    name: str
    text: str


def find_ignore_file(context: str, dockerfile: str | None) -> IgnoreFile | None:
    """The ignore file that counts: `<Dockerfile>.dockerignore` or `<Dockerfile>.containerignore` beside the Dockerfile,
    else `.containerignore` or `.dockerignore` at the root.

    `context` and `dockerfile` are paths of the host (`dockerfile` None if it came from elsewhere). As in BuildKit a
    file that cannot be read, or is none, counts as missing. So does a link that leads out of the context and of the
    Dockerfile's directory: whoever made the context must not have a file of the host read.
    """
    if dockerfile is not None:
        for end in OF_DOCKERFILE:
            text = _read(dockerfile + end, context, os.path.dirname(dockerfile) or ".")
            if text is not None:
                return IgnoreFile(os.path.basename(dockerfile) + end, text)
    for name in OF_CONTEXT:
        text = _read(os.path.join(context, name), context)
        if text is not None:
            return IgnoreFile(name, text)
    return None


def _read(path: str, *roots: str) -> str | None:
    """The text of a file, if it is one; a link is followed within one of the `roots` only."""
    if os.path.islink(path):
        path = os.path.realpath(path)
        if not any(os.path.commonpath((root, path)) == root for root in map(os.path.realpath, roots)):
            return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hang the build
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(_MAX_SIZE + 1)
    finally:
        os.close(descriptor)
    if len(data) > _MAX_SIZE:
        raise ContextError("the ignore file is larger than 16 MiB", place=path)
    return data.decode("utf-8", "surrogateescape")


def compile_rules(text: str, source: str = DEFAULT_NAME) -> Rules:
    """The rules of an ignore file's text. Raises ContextError with `source:LINE` for a malformed pattern.

    A byte order mark is dropped, a line whose first character is `#` is a comment, white space around a pattern is
    dropped, also between `!` and the pattern, and so is one leading slash (moby/patternmatcher/ignorefile).
    """
    from builder.context.ignore_pattern import clean_path, strip

    lines = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = line.removesuffix("\r")
        pattern = strip(line)
        if line.startswith("#") or not pattern:
            continue
        negated = pattern.startswith("!")
        if negated:
            pattern = strip(pattern[1:])
        if pattern:
            pattern = clean_path(pattern)
            if len(pattern) > 1:
                pattern = pattern.removeprefix("/")
        lines.append((number, line, "!" + pattern if negated else pattern))
    return _compile(lines, source)


def compile_patterns(patterns: Iterable[str], source: str = "--exclude") -> Rules:
    """The rules of a list of patterns, as given with `COPY --exclude`: no comments, and a leading slash stays (and so
    never matches). Raises ContextError."""
    return _compile([(number, pattern, pattern) for number, pattern in enumerate(patterns, 1)], source)


def _compile(lines: Iterable[tuple[int, str, str]], source: str) -> Rules:
    from builder.context.go_regex import BadPattern
    from builder.context.ignore_pattern import DockerPattern

    rules = []
    for number, text, pattern in lines:
        try:
            compiled = DockerPattern(pattern)
        except BadPattern as problem:
            raise ContextError(
                f"bad pattern: {problem}",
                place=f"{source}:{number}",
                remedy="see https://docs.docker.com/build/concepts/context/#syntax for what a pattern may hold",
                details=(f"    {text}",),
            ) from None
        if compiled.regex is not None:
            negated = compiled.include is False
            rules.append(Rule(compiled.regex.pattern, negated, number, text, _prefix(compiled.clean)))
    return Rules(tuple(rules), source)


def _prefix(pattern: str) -> str | None:
    pattern = pattern.removesuffix("/**").removesuffix("/*")
    return None if any(character in "*[]?^\\" for character in pattern) else pattern


class Matcher:
    """Says which paths rules hide. Paths are relative, slash-separated and clean; the root `""` is never hidden.

    What was found for a directory is remembered. Several threads may use one matcher.
    """

    __slots__ = ("_exceptions", "_hidden", "_hiding", "_masks", "_patterns", "_prefixes", "rules")

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._exceptions = any(rule.negated for rule in rules.rules)
        kept = [rule.prefix for rule in rules.rules if rule.negated]
        # where an exception may lie, or None if anywhere
        self._prefixes = None if None in kept else tuple(f"{prefix}/" for prefix in kept)
        self._patterns: list[tuple[int, Callable[[str], object], bool]] = []
        self._masks: dict[str, int] = {"": 0}
        # whether any rule hides a path, exceptions aside
        self._hiding = _any_of([rule.regex for rule in rules.rules if not rule.negated])
        self._hidden = self._hiding if rules.rules and not self._exceptions else None

    def ignored(self, path: str) -> bool:
        """Whether `path` itself is hidden. A hidden directory can still hold files that are kept."""
        if not path:
            return False
        return self.tester(path.rpartition("/")[0])(path)

    def tester(self, directory: str) -> Callable[[str], bool]:
        """`ignored` for the entries of one directory, by their full paths: what is known of the directory is used."""
        mask = self._mask(directory)
        hidden = self._hidden
        if hidden is not None:
            if mask:
                return _always
            return lambda path: hidden(path) is not None
        if not self.rules.rules:
            return _never
        return lambda path: self._evaluate(path, mask)[1]

    def explain(self, path: str) -> Rule | None:
        """The rule that decided about `path`: it hides it, or keeps it if `negated`. None if no rule applies."""
        mask, decisive = 0, -1
        for end in [*(found.start() for found in re.finditer("/", path)), len(path)]:
            mask, _, decisive = self._evaluate(path[:end], mask)
        return self.rules.rules[decisive] if path and decisive >= 0 else None

    def may_skip_directory(self, path: str) -> bool:
        """Whether nothing in the directory `path` can be visible: it is hidden and no exception can lie in it."""
        if not self.ignored(path):
            return False
        if self._prefixes is None:
            return False
        inside = path + "/"
        return not any(prefix.startswith(inside) for prefix in self._prefixes)

    def _mask(self, directory: str) -> int:
        """The rules that matched a directory, as a set of bits; without exceptions only whether there was one."""
        mask = self._masks.get(directory)
        if mask is None:
            above = self._mask_above(directory)
            if self._hidden is not None:
                mask = 1 if above or self._hidden(directory) else 0
            else:
                mask = self._evaluate(directory, above)[0]
            self._masks[directory] = mask
        return mask

    def _mask_above(self, directory: str) -> int:
        """The mask of the parent, without recursion so deep that a path of thousands of components breaks it."""
        parent = directory.rpartition("/")[0]
        if parent in self._masks:
            return self._masks[parent]
        for found in re.finditer("/", parent):
            self._mask(parent[: found.start()])
        return self._mask(parent)

    def _evaluate(self, path: str, above: int) -> tuple[int, bool, int]:
        """The rules that match `path` given those that matched its directory; whether it is hidden; the last rule."""
        if not above and self._hiding(path) is None:  # and where nothing is hidden, exceptions do not count
            return 0, False, -1
        patterns = self._patterns
        if not patterns and self.rules.rules:
            compiled = enumerate((re.compile(rule.regex).match, rule.negated) for rule in self.rules.rules)
            patterns = self._patterns = [(index, match, negated) for index, (match, negated) in compiled]
        mask, hidden, decisive = 0, False, -1
        for index, match, negated in patterns:
            bit = 1 << index
            if not above & bit and (negated is not hidden or match(path) is None):
                continue
            mask |= bit
            hidden = not negated
            decisive = index
        return mask, hidden, decisive


_ANYWHERE, _END = r"\A(?a:(?:.*/)?", r")\Z"
"""Around the regular expression of a pattern that begins with `**/`."""


def _any_of(regexes: Iterable[str]) -> Callable[[str], object]:
    """Says whether one of these regular expressions matches. For all that begin with `**/` the directories are gone
    through together: with a thousand patterns that takes a hundredth of the time."""
    anywhere, others = [], []
    for regex in regexes:
        if regex.startswith(_ANYWHERE):
            anywhere.append(f"(?:{regex[len(_ANYWHERE) : -len(_END)]})")
        else:
            others.append(f"(?:{regex})")
    if anywhere:
        others.append(f"{_ANYWHERE}(?:{'|'.join(anywhere)}){_END}")
    return re.compile("|".join(others)).match


def _always(path: str) -> bool:
    return True


def _never(path: str) -> bool:
    return False
