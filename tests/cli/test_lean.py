"""Modules that stand in for others while a library is loaded."""

from __future__ import annotations

import sys
import typing
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import pytest

from builder.cli.lean import Later, StandIns, Types, load, load_later


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that writes modules into a folder of the path, and has them forgotten at the end."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    before = set(sys.modules)

    def write(**modules: str) -> None:
        for name, code in modules.items():
            (tmp_path / f"{name}.py").write_text(code)

    yield write
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_library_is_loaded_without_what_it_hardly_uses(library: Any) -> None:
    library(lean_user="import lean_used\nfrom lean_used import f\nT = lean_used.T\n", lean_used="raise SystemExit")
    load("lean_user", {"lean_used": Types("lean_used")})
    assert isinstance(sys.modules["lean_user"].T, type)
    assert "lean_used" not in sys.modules


def test_what_is_called_later_is_the_real_one(library: Any) -> None:
    used = "X = 3\ndef double(n): return n * 2\n"
    library(lean_user="from lean_used import double\nimport lean_used\n", lean_used=used)
    load("lean_user", {"lean_used": Later("lean_used", "double")})
    user = sys.modules["lean_user"]
    assert "lean_used" not in sys.modules
    assert user.double(21) == 42
    assert user.lean_used.X == 3
    assert sys.modules["lean_used"].__file__
    with pytest.raises(AttributeError):
        _ = user.lean_used.missing


def test_a_library_that_wants_more_gets_the_real_modules(library: Any) -> None:
    library(lean_user="import lean_used\nX = lean_used.X + 1\n", lean_used="X = 3\n")
    load("lean_user", {"lean_used": ModuleType("lean_used")})
    assert sys.modules["lean_user"].X == 4
    assert sys.modules["lean_used"].__file__


def test_modules_that_are_loaded_stay(library: Any) -> None:
    library(lean_user="import lean_used\nX = lean_used.X\n", lean_used="X = 3\n")
    real = __import__("lean_used")
    load("lean_user", {"lean_used": ModuleType("lean_used")})
    assert sys.modules["lean_used"] is real
    assert sys.modules["lean_user"].X == 3


def test_what_is_asked_at_once_is_the_real_one(library: Any) -> None:
    library(lean_user="import lean_used\nX = lean_used.X\n", lean_used="X = 3\n")
    load("lean_user", {"lean_used": Later("lean_used")})
    assert sys.modules["lean_user"].X == 3
    assert sys.modules["lean_used"].__file__


def test_a_module_within_a_package(library: Any, tmp_path: Path) -> None:
    (tmp_path / "lean_package").mkdir()
    (tmp_path / "lean_package/used.py").write_text("X = 3\n")
    library(lean_user="import lean_package.used\ndef f(): return lean_package.used.X\n")
    load("lean_user", {"lean_package.used": Later("lean_package.used")})
    assert "lean_package.used" not in sys.modules
    assert sys.modules["lean_user"].f() == 3
    assert sys.modules["lean_package"].used is sys.modules["lean_package.used"]


def test_a_library_is_loaded_so_when_somebody_imports_it(library: Any) -> None:
    asked: list[str] = []

    def stand_ins(name: str) -> StandIns:
        asked.append(name)
        return {"lean_used": Types("lean_used")}

    library(lean_user="from lean_used import T\n", lean_other="", lean_used="raise SystemExit")
    load_later(("lean_user", "lean_absent"), stand_ins)
    __import__("lean_other")
    assert asked == []
    __import__("lean_user")
    __import__("lean_user")
    assert asked == ["lean_user"]
    user = sys.modules["lean_user"]
    assert user.__spec__ is not None
    assert user.__loader__ is user.__spec__.loader
    assert user.__loader__.get_source("lean_user") == "from lean_used import T\n"  # type: ignore[union-attr]
    with pytest.raises(ModuleNotFoundError):
        __import__("lean_absent")


def test_a_library_that_is_loaded_later_and_wants_more_gets_the_real_modules(library: Any) -> None:
    library(lean_user="import lean_part\n", lean_part="import lean_used\nX = lean_used.X + 1\n", lean_used="X = 3\n")
    load_later(["lean_user"], lambda _: {"lean_used": ModuleType("lean_used")})
    __import__("lean_user")
    assert sys.modules["lean_part"].X == 4
    assert sys.modules["lean_used"].__file__


def test_a_library_that_fails_fails_as_ever(library: Any) -> None:
    library(lean_user="1 / 0\n")
    load_later(["lean_user"], lambda _: {})
    with pytest.raises(ZeroDivisionError):
        __import__("lean_user")
    assert "lean_user" not in sys.modules


def test_annotations_that_are_not_read(library: Any) -> None:
    """A library may still state types as texts; what stands for one of them says so when it is asked."""
    used = "from typing import ForwardRef, TypedDict\nclass D(TypedDict):\n    x: 'no ] type'\n"
    library(lean_user=used + "T = ForwardRef('int')\n")
    load("lean_user", {})
    user = sys.modules["lean_user"]
    assert user.D(x=1) == {"x": 1}
    with pytest.raises(NameError, match="not read"):
        get_type_hints(user.D)
    assert get_type_hints(type("Later", (), {"__annotations__": {"x": "int"}})) == {"x": int}
    assert not hasattr(typing, "compile")
