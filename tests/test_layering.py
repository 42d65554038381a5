"""Imports point down: a package knows those below it and none beside or above it, in no circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "builder"
LEVELS = (
    ("authorities", "boot", "bundle", "errors"),
    ("progress",),
    ("places", "proxies"),
    ("config", "oci"),
    ("filesystem", "sandbox", "dockerfile"),
    ("context",),
    ("plan", "store", "registry"),
    ("solver",),
    ("export",),
    ("api",),
    ("cli",),
    ("__init__", "__main__", "pytest_plugin"),
)
HEIGHT = {name: height for height, names in enumerate(LEVELS) for name in names}
LEAVES = {"sandbox"}  # import nothing of ours at all
CIRCLES = (
    {"cli.build", "cli.building", "cli.plan"},  # `build --dry-run` is a plan, whose options are those of a build
    {"dockerfile.words", "dockerfile.word_parts"},  # the grammar's part, which only words that need it load
    {"store.builds", "store.recorder"},  # what is written of a build, which only those who record load
)


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Lines and absolute names of all imports: at the top, in functions and under TYPE_CHECKING alike."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, package)
            if origin == "builder":  # what is imported are its modules
                for alias in node.names:
                    yield node.lineno, f"builder.{alias.name}"
            else:
                yield node.lineno, origin


def _origin(node: ast.ImportFrom, package: list[str]) -> str:
    above = package[: len(package) - node.level + 1] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def needs(source: str, module: str, known: set[str], *, is_package: bool = False) -> set[str]:
    """The modules of these that one imports when it runs, at the top or in functions."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not _is_for_types(node)]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, package)
            names = {f"{origin}.{alias.name}" for alias in node.names}
            found |= names & known if names & known else {origin}
    return (found & known) - {module}


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that lead to each other, [] if there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What a module imports and must not."""
    parts = module.split(".")
    home = parts[1] if len(parts) > 1 else "__init__"
    found = []
    for line, name in imports(source, module, is_package=is_package):
        if name.partition(".")[0] != "builder" or name == "builder.__version__":
            continue
        other = [*name.split("."), "__init__"][1]
        if other != home and (home in LEAVES or HEIGHT.get(other, 99) >= HEIGHT[home]):
            found.append(f"{module}:{line} imports {name}")
    return found


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["builder", *path.relative_to(PACKAGE).with_suffix("").parts]
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def test_every_package_has_its_level() -> None:
    homes = {module.split(".")[1] if "." in module else "__init__" for module, _ in modules()}
    assert homes == set(HEIGHT)


def test_imports_point_down() -> None:
    found = []
    for module, path in modules():
        found += violations(path.read_text(), module, is_package=path.name == "__init__.py")
    assert not found, "\n".join(found)


def test_modules_stand_in_no_circle() -> None:
    known = {module for module, _ in modules()}
    graph = {
        module: needs(path.read_text(), module, known, is_package=path.name == "__init__.py")
        for module, path in modules()
    }
    circles = [{f"builder.{module}" for module in each} for each in CIRCLES]
    for each in circles:
        assert circle({module: graph[module] & each for module in each}), f"no circle any longer: {sorted(each)}"
    one = {module: min(each) for each in circles for module in each}  # of those that are allowed, as if it were all
    merged: dict[str, set[str]] = {}
    for module, others in graph.items():
        home = one.get(module, module)
        merged.setdefault(home, set()).update({one.get(other, other) for other in others} - {home})
    assert circle(merged) == []


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ({"p.a": "from p.b import x", "p.b": "def f():\n    from p import a"}, True),
        ({"p.a": "from . import b", "p.b": "import p.c", "p.c": "from .a import x"}, True),
        ({"p.a": "from p.b import x", "p.b": "if TYPE_CHECKING:\n    from p import a"}, False),
        ({"p": "", "p.a": "from p import x, b", "p.b": "from p import c"}, False),
    ],
)
def test_circles_are_found(sources: dict[str, str], found: bool) -> None:
    graph = {module: needs(source, module, set(sources)) for module, source in sources.items()}
    assert bool(circle(graph)) == found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("builder.export.deliver", "from builder.api.options import BuildOptions"),
        ("builder.export.deliver", "from ..api import options"),
        ("builder.export.deliver", "def f():\n    import builder.cli.main"),
        ("builder.export.deliver", "if TYPE_CHECKING:\n    from builder import api"),
        ("builder.plan.planner", "from builder.store.store import Store"),
        ("builder.sandbox.client", "from builder.errors import BuilderError"),
        ("builder.errors", "import builder"),
        ("builder.oci.spec", "from builder import errors, cli"),
    ],
)
def test_what_points_up_or_sideways_is_found(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("builder.export.deliver", "from builder.solver.solve import Root"),
        ("builder.export.deliver", "from . import output\nfrom .output import Output"),
        ("builder.sandbox.client", "from . import syscalls\nimport os"),
        ("builder.context.local", "from builder.filesystem.tree import FileTree"),
        ("builder.cli.main", "from builder import __version__"),
    ],
)
def test_what_points_down_is_not(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_there_are_no_enumerations() -> None:
    """msgspec is loaded without `enum`, and would refuse to encode their members (see `builder.cli`)."""
    found = [module for module, path in modules() for _, name in imports(path.read_text(), module) if name == "enum"]
    assert not found


def test_the_sandbox_needs_only_the_standard_library() -> None:
    import sys

    for module, path in modules():
        if module.startswith("builder.sandbox"):
            for line, name in imports(path.read_text(), module, is_package=path.name == "__init__.py"):
                top = name.partition(".")[0]
                assert top == "builder" or top in sys.stdlib_module_names, f"{module}:{line} imports {name}"
