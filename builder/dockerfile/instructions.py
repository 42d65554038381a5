"""The instructions of a Dockerfile as typed, frozen data: what `parser.parse` makes and `plan` reads.

Fields that a build expands (`$NAME`, quotes, escapes) are `Word`s, everything else is final. The set follows
BuildKit's `frontend/dockerfile/instructions/commands.go`. All of it can be encoded and decoded by msgspec, so that
a parsed Dockerfile can be kept in the store and read again without loading the grammar.
"""

# No postponed annotations: msgspec would have to evaluate 150 texts before it reads a stored Dockerfile.
import msgspec

from builder.dockerfile.words import Word


class Range(msgspec.Struct, frozen=True, array_like=True):
    """Lines of the Dockerfile, counted from 1, both ends included."""

    start: int
    end: int


class Heredoc(msgspec.Struct, frozen=True):
    """A here-document: `name` is its delimiter, `content` its text (tabs already chomped after `<<-`).

    `expand` is false when the delimiter was quoted. `descriptor` is the number before `<<`, 0 where there is none.
    """

    name: str
    content: str
    expand: bool = True
    chomp: bool = False
    descriptor: int = 0


class Instruction(msgspec.Struct, frozen=True, tag=True, tag_field="instruction", kw_only=True):
    """What all instructions have: the text as written (continuations joined, trimmed), its lines, its comments.

    `keyword` is as written in the file (`run`, `RUN`); `comments` are the comment lines directly above it, without `#`.
    """

    source: str
    range: Range
    keyword: str
    comments: tuple[str, ...] = ()


class KeyValue(msgspec.Struct, frozen=True):
    """`key=value`; `legacy` when it was written `key value` (ENV and LABEL), `given` is false for a bare `ARG name`."""

    key: Word
    value: Word
    legacy: bool = False
    given: bool = True


class CommandLine(msgspec.Struct, frozen=True):
    """What RUN, CMD and ENTRYPOINT start. Exec form: `arguments` is the JSON array. Shell form: `shell` is true and
    `arguments` holds the one command line. Heredocs only come with RUN."""

    arguments: tuple[str, ...]
    shell: bool
    heredocs: tuple[Heredoc, ...] = ()


class From(Instruction, frozen=True, kw_only=True):
    """Begins a stage. `name` is what stands behind AS, as written ('' without)."""

    image: Word
    platform: Word | None = None
    name: str = ""
    as_keyword: str = ""


class Run(Instruction, frozen=True, kw_only=True):
    """`mounts` are the values of --mount as words: expanded first, then read by `mounts.parse_mount`."""

    command: CommandLine
    mounts: tuple[Word, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[Word, ...] = ()


class InlineSource(msgspec.Struct, frozen=True):
    """A here-document as the source of COPY or ADD: a file called `path` with `content`."""

    path: str
    content: Word


class Copy(Instruction, frozen=True, kw_only=True):
    """COPY. `from_` is the value of --from ('' without; not expanded, as in BuildKit)."""

    sources: tuple[Word, ...]
    inline: tuple[InlineSource, ...] = ()
    destination: Word
    from_: str = ""
    chown: Word | None = None
    chmod: Word | None = None
    link: bool = False
    parents: bool = False
    excludes: tuple[Word, ...] = ()


class Add(Instruction, frozen=True, kw_only=True):
    """ADD. `unpack` and `keep_git_dir` are None when not given."""

    sources: tuple[Word, ...]
    inline: tuple[InlineSource, ...] = ()
    destination: Word
    chown: Word | None = None
    chmod: Word | None = None
    link: bool = False
    excludes: tuple[Word, ...] = ()
    checksum: Word | None = None
    keep_git_dir: bool | None = None
    unpack: bool | None = None


class Env(Instruction, frozen=True, kw_only=True):
    pairs: tuple[KeyValue, ...]


class Arg(Instruction, frozen=True, kw_only=True):
    pairs: tuple[KeyValue, ...]


class Label(Instruction, frozen=True, kw_only=True):
    pairs: tuple[KeyValue, ...]


class Expose(Instruction, frozen=True, kw_only=True):
    """`ports` may each expand to several words."""

    ports: tuple[Word, ...]


class Cmd(Instruction, frozen=True, kw_only=True):
    command: CommandLine


class Entrypoint(Instruction, frozen=True, kw_only=True):
    command: CommandLine


class Workdir(Instruction, frozen=True, kw_only=True):
    path: Word


class User(Instruction, frozen=True, kw_only=True):
    user: Word


class Volume(Instruction, frozen=True, kw_only=True):
    paths: tuple[Word, ...]


class StopSignal(Instruction, frozen=True, kw_only=True):
    signal: Word


class Shell(Instruction, frozen=True, kw_only=True):
    shell: tuple[str, ...]


class HealthCheck(Instruction, frozen=True, kw_only=True):
    """`test` is None for HEALTHCHECK NONE. Times are nanoseconds, 0 where not given."""

    test: CommandLine | None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class OnBuild(Instruction, frozen=True, kw_only=True):
    """`trigger` is the text of the instruction to be run in a build that starts from this image."""

    trigger: str


class Maintainer(Instruction, frozen=True, kw_only=True):
    name: str


StageInstruction = (
    Run | Copy | Add | Env | Arg | Label | Expose | Cmd | Entrypoint | Workdir | User | Volume
    | StopSignal | Shell | HealthCheck | OnBuild | Maintainer
)  # fmt: skip


class Directive(msgspec.Struct, frozen=True):
    """A parser directive: `# name=value`, the name in lower case."""

    name: str
    value: str
    range: Range


class Stage(msgspec.Struct, frozen=True):
    """A FROM and what follows it."""

    from_: From
    instructions: tuple[StageInstruction, ...]


class Notice(msgspec.Struct, frozen=True):
    """Something the parser saw that a build check reports: `rule` is BuildKit's name for it."""

    rule: str
    message: str
    range: Range


class Dockerfile(msgspec.Struct, frozen=True):
    """A parsed Dockerfile. `global_args` are the ARGs before the first FROM; `escape` is the escape character."""

    directives: tuple[Directive, ...]
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    escape: str = "\\"
    notices: tuple[Notice, ...] = ()
