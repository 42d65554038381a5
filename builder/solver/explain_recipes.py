"""What differs between two recipes of one step, each difference in a line for people and as data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from builder.filesystem import kinds
from builder.solver.explain_files import FileChange, compare_files, describe_node, summary
from builder.solver.keys import Recipe
from builder.store.builds import BuiltStep

_WIDEST = 60
_EXEC_FORM = r"(?i)RUN(\s+--\S+)*\s+\["


class Difference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing in which a step is not what it was. `kind` is a word for machines (the same as in Reason), `text` a
    line for people, `subject` the name of what differs, `old` and `new` its values where they can be shown; `files`
    the files in which a source differs; `step` the step from which the difference comes."""

    kind: str
    text: str
    subject: str = ""
    old: str = ""
    new: str = ""
    files: tuple[FileChange, ...] = ()
    step: str = ""


Below = Callable[[int, Sequence[str], Sequence[str]], Difference]
"""Says how two stacks of layers differ: the position among what the step needs, the old layers, the new ones."""

Part = Callable[[str], Difference | None]
"""Says how what a mount shows of a context differs, by its `content_name`; None where it is not known."""


def compare(
    old_step: BuiltStep, new_step: BuiltStep, old: Recipe, new: Recipe, below: Below, part: Part
) -> list[Difference]:
    """The differences, the most telling first."""
    found: list[Difference] = []
    if old_step.instruction != new_step.instruction or old.get("step") != new.get("step"):
        found.append(changed_instruction(old_step, new_step))
        if old.get("step") != new.get("step"):
            return found
    if new.get("step") == "run":
        found += _compare_runs(old_step, new_step, old, new, below, part)
    elif new.get("step") == "copy":
        found += _compare_copies(old_step, new_step, old, new)
    else:
        found += _compare_workdirs(old_step, new_step, old, new)
    return _once(found)


def changed_instruction(old: BuiltStep, new: BuiltStep) -> Difference:
    return Difference(
        kind="instruction", text="instruction changed", subject=new.position, old=old.instruction, new=new.instruction
    )


def _once(found: list[Difference]) -> list[Difference]:
    """Each difference once: that an instruction changed may be told by its text and by what it says."""
    kept: list[Difference] = []
    for difference in found:
        if not any((difference.kind, difference.text) == (other.kind, other.text) for other in kept):
            kept.append(difference)
    return kept


# --- commands


def _compare_runs(
    old_step: BuiltStep, new_step: BuiltStep, old: Recipe, new: Recipe, below: Below, part: Part
) -> Iterator[Difference]:
    old_argv, new_argv = old["argv"], new["argv"]
    if old_argv != new_argv:
        same_line = old_argv[-1:] == new_argv[-1:] and old_step.instruction == new_step.instruction
        if same_line and not re.match(_EXEC_FORM, new_step.instruction):
            yield Difference(
                kind="shell", text="SHELL changed", old=" ".join(old_argv[:-1]), new=" ".join(new_argv[:-1])
            )
        else:
            yield msgspec.structs.replace(
                changed_instruction(old_step, new_step), old=" ".join(old_argv), new=" ".join(new_argv)
            )
    if old["script"] != new["script"]:
        texts = ["\n".join(recipe["script"] or ()) for recipe in (old, new)]
        yield msgspec.structs.replace(changed_instruction(old_step, new_step), old=texts[0], new=texts[1])
    yield from _compare_variables(old, new, {*old_step.arguments, *new_step.arguments})
    if old["parent"] != new["parent"]:
        yield below(0, old["parent"], new["parent"])
    if (old["user"] or "root") != (new["user"] or "root"):
        yield _value("user", "USER", old["user"] or "root", new["user"] or "root")
    elif old["user"] != new["user"]:
        yield _value("user", "USER", old["user"], new["user"])
    for name, label in (("workdir", "WORKDIR"), ("network", "network"), ("security", "security")):
        if old[name] != new[name]:
            yield _value(name, label, old[name], new[name])
    if old["mounts"] != new["mounts"]:
        yield from _compare_mounts(old["mounts"], new["mounts"], below, part)
    for name, label in _SETTINGS.items():
        if old.get(name) != new.get(name):
            yield _value("option", label, *(_setting(name, recipe.get(name)) for recipe in (old, new)))


_SETTINGS = {
    "hosts": "--add-host",
    "hostname": "BUILDKIT_SANDBOX_HOSTNAME",
    "shm_size": "--shm-size",
    "ulimits": "--ulimit",
    "epoch": "SOURCE_DATE_EPOCH",
    "platform": "platform",
}


def _setting(name: str, value: Any) -> str:
    if name == "hosts":
        return " ".join(f"{host}:{address}" for host, address in value or ())
    if name == "ulimits":
        return " ".join(f"{limit}={soft}:{hard}" for limit, soft, hard in value or ())
    return "" if value is None or (name == "shm_size" and not value) else str(value)


def _value(kind: str, subject: str, old: str, new: str) -> Difference:
    return Difference(kind=kind, text=f"{subject}: {_short(old)} → {_short(new)}", subject=subject, old=old, new=new)


def _short(text: str) -> str:
    """A value within a line: nothing is shown as "", what is long is cut."""
    shown = "".join(character if character.isprintable() else "␣" for character in text)
    return (shown if len(shown) <= _WIDEST else shown[: _WIDEST - 1] + "…") or '""'


def _compare_variables(old: Recipe, new: Recipe, arguments: set[str]) -> Iterator[Difference]:
    before, after = dict(old["env"]), dict(new["env"])
    for name in sorted({*before, *after}):
        if before.get(name, _ABSENT) != after.get(name, _ABSENT):
            kind = "ARG" if name in arguments else "ENV"
            yield variable(kind, name, before.get(name, _ABSENT), after.get(name, _ABSENT))
    if before == after and old["env"] != new["env"]:
        yield Difference(kind="environment", text="the order of variables changed")


_ABSENT = object()


def variable(word: str, name: str, old: Any, new: Any) -> Difference:
    """How a variable changed; of one that looks like a secret the values are not here to be told."""
    kind = "argument" if word == "ARG" else "environment"
    subject = f"{word} {name}"
    if isinstance(old, dict) or isinstance(new, dict):
        what = "added" if old is _ABSENT else "removed" if new is _ABSENT else "changed"
        return Difference(kind=kind, text=f"{subject} {what}", subject=name)
    if old is _ABSENT:
        return Difference(kind=kind, text=f"{subject} added: {_short(new)}", subject=name, new=new)
    if new is _ABSENT:
        return Difference(kind=kind, text=f"{subject} removed", subject=name, old=old)
    return Difference(kind=kind, text=f"{subject}: {_short(old)} → {_short(new)}", subject=name, old=old, new=new)


# --- mounts


def _compare_mounts(old: Sequence[Recipe], new: Sequence[Recipe], below: Below, part: Part) -> Iterator[Difference]:
    before, after = ({_name(mount): mount for mount in mounts} for mounts in (old, new))
    place = 0  # among what the step needs; its parent is the first
    for mount in new:
        name = _name(mount)
        place += "layers" in mount
        known = before.get(name)
        if known is None:
            yield Difference(kind="mount", text=f"mount {name} added", subject=name)
        elif known != mount:
            yield from _compare_mount(name, known, mount, place, below, part)
    for name in before.keys() - after.keys():
        yield Difference(kind="mount", text=f"mount {name} removed", subject=name)
    if before == after:
        yield Difference(kind="mount", text="the order of mounts changed")


def _name(mount: Recipe) -> str:
    return str(mount.get("target") or mount.get("variable") or mount.get("secret") or mount.get("agent") or "")


def _compare_mount(name: str, old: Recipe, new: Recipe, place: int, below: Below, part: Part) -> Iterator[Difference]:
    told = False
    if "layers" in old and "layers" in new and old["layers"] != new["layers"]:
        found = below(place, old["layers"], new["layers"])
        yield msgspec.structs.replace(found, text=f"mount {name}: {found.text}", subject=name)
        told = True
    if "content" in old and "content" in new and old["content"] != new["content"] and old["source"] == new["source"]:
        found_part = part(str(new["source"]))
        files = found_part.files if found_part is not None else ()
        text = f"mount source changed: {summary(files)}" if files else "mount source changed"
        yield Difference(kind="mount-source", text=text, subject=name, files=files)
        told = True
    rest = [key for key in {*old, *new} - {"layers", "content"} if old.get(key) != new.get(key)]
    if rest or not told:
        yield Difference(kind="mount", text=f"mount {name} changed", subject=name)


# --- copies and working directories


def _compare_copies(old_step: BuiltStep, new_step: BuiltStep, old: Recipe, new: Recipe) -> Iterator[Difference]:
    flags = list(_compare_flags(old, new))
    same_text = old_step.instruction == new_step.instruction
    moved = same_text and (old_step.sources != new_step.sources or bool(flags))
    variables = list(_compare_used(old_step, new_step)) if moved else []
    yield from variables
    if not (variables and same_text):
        yield from flags
    sources = list(_compare_sources(new_step, old.get("sources", ()), new.get("sources", ())))
    if not variables or old_step.sources == new_step.sources:
        yield from sources
    yield from _compare_parent(old, new)
    if old.get("epoch") != new.get("epoch"):
        yield _value("option", "SOURCE_DATE_EPOCH", *(_setting("epoch", recipe.get("epoch")) for recipe in (old, new)))


def _compare_flags(old: Recipe, new: Recipe) -> Iterator[Difference]:
    for name, label in (
        ("destination", "destination"),
        ("chown", "--chown"),
        ("chmod", "--chmod"),
        ("link", "--link"),
        ("excludes", "--exclude"),
    ):
        if old.get(name) != new.get(name):
            values = [_flag(name, recipe.get(name)) for recipe in (old, new)]
            yield _value("instruction", label, *values)


def _flag(name: str, value: Any) -> str:
    if name == "chmod" and isinstance(value, int):
        return f"{value:o}"
    if isinstance(value, list):
        return " ".join(value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _compare_used(old: BuiltStep, new: BuiltStep) -> Iterator[Difference]:
    """The variables in the instruction's words that have other values now."""
    before = {name: (kind, value) for kind, name, value in old.variables}
    for kind, name, value in new.variables:
        if name in before and before[name][1] != value:
            masked = value.startswith("sha256:") or before[name][1].startswith("sha256:")
            yield variable(kind, name, {} if masked else before[name][1], {} if masked else value)


def _compare_sources(step: BuiltStep, old: Sequence[Any], new: Sequence[Any]) -> Iterator[Difference]:
    for number, (before, after) in enumerate(zip(old, new, strict=False)):
        if before == after:
            continue
        written = step.sources[number] if number < len(step.sources) else ""
        if isinstance(before, list) and isinstance(after, list):
            files = tuple(compare_files(before, after, written))
            if files:
                yield Difference(kind="files", text=summary(files), subject=written, files=files)
        elif isinstance(before, dict) and isinstance(after, dict):
            yield from _compare_fetched(written, before, after)
    if len(old) != len(new):
        yield Difference(kind="instruction", text="instruction changed", old=f"{len(old)} sources", new=f"{len(new)}")


def _compare_fetched(written: str, old: Recipe, new: Recipe) -> Iterator[Difference]:
    if "inline" in new and "inline" in old:
        if old["sha256"] != new["sha256"]:
            yield Difference(kind="files", text=f"here-document {new['inline']} changed", subject=str(new["inline"]))
    elif "commit" in new and "commit" in old and old["commit"] != new["commit"]:
        commits = [str(recipe["commit"])[:12] for recipe in (old, new)]
        text = f"commit {commits[0]} → {commits[1]}"
        yield Difference(kind="git", text=text, subject=str(new["git"]), old=old["commit"], new=new["commit"])
    elif "digest" in new and "digest" in old and old["digest"] != new["digest"]:
        yield Difference(
            kind="download", text=f"{written} changed", subject=written, old=old["digest"], new=new["digest"]
        )


def _compare_parent(old: Recipe, new: Recipe) -> Iterator[Difference]:
    """What the parent answered: the owner that a name means, and what is at the destination."""
    if old.get("owner") != new.get("owner") and old.get("chown") == new.get("chown"):
        owners = [":".join(map(str, recipe.get("owner") or ("none",))) for recipe in (old, new)]
        yield _value("owner", f"owner {new.get('chown') or new.get('user')}", *owners)
    before, after = ({fact[0]: fact for fact in recipe.get("facts") or ()} for recipe in (old, new))
    for path in sorted(before.keys() & after.keys()):
        if before[path] != after[path]:
            yield _value("destination", f"/{path} in its parent", *(_fact(facts[path]) for facts in (before, after)))


def _fact(fact: Sequence[Any]) -> str:
    _, kind, mode, uid, gid, link = fact
    if kind is None:
        return "none"
    if kind == kinds.SYMLINK:
        return f"link to {link}"
    return describe_node(kind, mode, uid, gid)


def _compare_workdirs(old_step: BuiltStep, new_step: BuiltStep, old: Recipe, new: Recipe) -> Iterator[Difference]:
    variables = list(_compare_used(old_step, new_step)) if old.get("path") != new.get("path") else []
    yield from variables
    if old.get("path") != new.get("path") and not variables and old_step.instruction == new_step.instruction:
        yield _value("workdir", "WORKDIR", str(old.get("path")), str(new.get("path")))
    if (old.get("user") or "root") != (new.get("user") or "root"):
        yield _value("user", "USER", old.get("user") or "root", new.get("user") or "root")
    yield from _compare_parent(old, new)
    if old.get("epoch") != new.get("epoch"):
        yield _value("option", "SOURCE_DATE_EPOCH", *(_setting("epoch", recipe.get("epoch")) for recipe in (old, new)))
