"""What Lark does when it was loaded by the command line, without the modules that it hardly uses: the same as ever."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.builds import PROJECT

UNUSED = (
    "ast", "getpass", "hashlib", "inspect", "lark.parsers.cyk", "lark.parsers.earley", "lark.parsers.xearley",
    "logging", "pickle", "pkgutil", "random", "tempfile", "tokenize",
)  # fmt: skip
"""What a grammar with known tables needs nothing of."""

SCRIPTS = {
    "a grammar from its text": """
        parser = lark.Lark('start: A+ | "\\\\x62"\\nA: /a/', parser="lalr")
        print(parser.parse("aa"), parser.parse("b"))
    """,
    "common terminals": """
        print(lark.Lark('start: WORD\\n%import common.WORD', parser="lalr").parse("word"))
    """,
    "Earley": """
        print(lark.Lark('start: a | b\\na: "x"\\nb: "x"', ambiguity="explicit").parse("x").pretty())
    """,
    "CYK": """
        print(lark.Lark('start: "x" "y"', parser="cyk").parse("xy"))
    """,
    "an error of the text": """
        try:
            lark.Lark('start: "x"', parser="lalr").parse("y")
        except lark.UnexpectedInput as error:
            print(type(error), error)
    """,
    "an error of the grammar": """
        try:
            lark.Lark('start: nothing', parser="lalr")
        except lark.exceptions.GrammarError as error:
            print(error)
    """,
    "a transformer with arguments": """
        @lark.v_args(inline=True)
        class Sum(lark.Transformer):
            from operator import add
            NUMBER = int
        grammar = '?start: NUMBER "+" NUMBER -> add\\nNUMBER: /[0-9]+/'
        print(lark.Lark(grammar, parser="lalr", transformer=Sum()).parse("1+2"))
    """,
    "tables in a file": """
        import io
        file = io.BytesIO()
        lark.Lark('start: "x"', parser="lalr").save(file)
        file.seek(0)
        print(lark.Lark.load(file).parse("x"))
    """,
    "its logger": """
        import logging
        print(lark.logger.name, lark.logger.level, len(lark.logger.handlers), lark.logger.isEnabledFor(logging.ERROR))
        lark.logger.setLevel(logging.DEBUG)
        lark.logger.debug("said")
    """,
    "names of Unicode": """
        print(lark.Lark('start: NAME\\nNAME: /\\\\w+/', parser="lalr").parse("ä"), lark.utils.is_id_start("ä"))
    """,
}


def run(script: str, *, lean: bool) -> str:
    lines = ["import builder.cli"] if lean else []
    lines += ["import lark", *(line.removeprefix(" " * 8) for line in script.splitlines())]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)}
    if "LD_LIBRARY_PATH" in os.environ:
        environ["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("what", SCRIPTS)
def test_it_is_the_same(what: str) -> None:
    assert run(SCRIPTS[what], lean=True) == run(SCRIPTS[what], lean=False) != ""


def test_a_dockerfile_is_parsed_without_the_rest() -> None:
    parsed = (
        "        import sys\n"
        "        from builder.dockerfile.forms import line_parser\n"
        "        from builder.dockerfile.word_parts import word_parser\n"
        "        line_parser(), word_parser()  # makes the tables, if nobody has\n"
        "        print(word_parser().parse('a$b', start='word'))\n"
    )
    run(parsed, lean=True)
    said = run(parsed + f"        print(*(name for name in {UNUSED!r} if name in sys.modules))\n", lean=True)
    assert said.splitlines()[-1] == ""
