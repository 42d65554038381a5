"""What build checks say about an instruction or a whole Dockerfile without planning it (BuildKit's linter/ruleset.go).

Rules that depend on the target, the base image or on values are not here. Nothing is suppressed here: `# check=` is in
the directives and in the instructions' comments.
"""

from __future__ import annotations

from collections.abc import Iterator

from builder.dockerfile.instructions import Arg, From, Instruction, Maintainer, Notice, Range, Stage

_RESERVED = ("context", "scratch")


def empty_continuation(line: int) -> Notice:
    """NoEmptyContinuation, at the last line of the instruction."""
    return Notice("NoEmptyContinuation", "Empty continuation line", Range(line, line))


def instruction_notices(instruction: Instruction) -> Iterator[Notice]:
    """The notices about one instruction by itself."""
    where = instruction.range
    if isinstance(instruction, Maintainer):
        yield Notice("MaintainerDeprecated", "Maintainer instruction is deprecated in favor of using label", where)
    elif isinstance(instruction, From) and instruction.name:
        name, keyword, as_keyword = instruction.name, instruction.keyword, instruction.as_keyword
        if name != name.lower():
            yield Notice("StageNameCasing", f"Stage name '{name}' should be lowercase", where)
        if (keyword.islower() and not as_keyword.islower()) or (keyword.isupper() and not as_keyword.isupper()):
            yield Notice("FromAsCasing", f"'{as_keyword}' and '{keyword}' keywords' casing do not match", where)
        yield from _description("FROM", [name.lower()], instruction)
    elif isinstance(instruction, Arg):
        yield from _description("ARG", [pair.key.source for pair in instruction.pairs], instruction)


def stage_notices(stages: tuple[Stage, ...]) -> Iterator[Notice]:
    """The notices about all stages together: their names, and the casing that most keywords have."""
    seen: set[str] = set()
    for stage in stages:
        name, where = stage.from_.name.lower(), stage.from_.range
        if name in _RESERVED:
            yield Notice(
                "ReservedStageName", f'Stage name should not use the same name as reserved stage "{name}"', where
            )
        if name and name in seen:
            yield Notice("DuplicateStageName", f'Duplicate stage name "{name}", stage names should be unique', where)
        seen.add(name)
    yield from _casing([i for stage in stages for i in (stage.from_, *stage.instructions)])


def _casing(instructions: list[Instruction]) -> Iterator[Notice]:
    lower = sum(i.keyword.islower() for i in instructions)
    upper = sum(i.keyword.isupper() for i in instructions)
    right = str.islower if lower > upper else str.isupper
    for instruction in instructions:
        if not right(instruction.keyword):
            casing = "lowercase" if lower > upper else "uppercase"
            yield Notice(
                "ConsistentInstructionCasing",
                f"Command '{instruction.keyword}' should match the case of the command majority ({casing})",
                instruction.range,
            )


def _description(keyword: str, names: list[str], instruction: Instruction) -> Iterator[Notice]:
    """The last comment above FROM and ARG describes it; experimental in BuildKit, so only reported on request."""
    if not instruction.comments or instruction.comments[-1].split(" ")[0] in names:
        return
    name = names[0] if len(names) == 1 else "<arg_key>"
    yield Notice(
        "InvalidDefinitionDescription",
        f"Comment for {keyword} should follow the format: `# {name} <description>`",
        instruction.range,
    )
