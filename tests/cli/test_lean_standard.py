"""Modules that are loaded late: whoever asks finds what has always been there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.builds import PROJECT

LATE = (
    "import sys\nimport builder.cli\nassert not [name for name in sys.modules if name.startswith('re.')]\n"
    "import threading as early\nassert '__file__' not in vars(early)\n"
    "assert not [name for name in ('operator', 'warnings') if '__file__' in vars(sys.modules[name])]\n"
)


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "asked",
    [
        "import re\nprint(re.sub('a+', 'b', 'aa') == 'b' and re.IGNORECASE is re.I)",
        "import re\nprint(re.compile('a').match('a').re.pattern == 'a')",
        "from re import fullmatch, error\nprint(fullmatch('a', 'a') is not None and issubclass(error, Exception))",
        "import re as early\nearly.match('a', 'a')\nimport re\nprint(re is not early and re.match is early.match)",
        "import re\nprint(re.__file__.endswith('__init__.py') and '__path__' in dir(re))",
        "import re._parser\nprint(len(re._parser.parse('ab')) == 2)",
        "import sre_compile\nprint(sre_compile.compile('a').match('a') is not None)",
        "import re, typing\nprint(typing.get_origin(typing.Pattern[str]) is re.Pattern is type(re.compile('a')))",
        "import re, typing\nprint(typing.get_origin(typing.Match[str]) is re.Match is type(re.match('a', 'a')))",
        "import copy, pickle, re\none = re.compile('a')\nprint(pickle.loads(pickle.dumps(one)) == copy.copy(one))",
        "import msgspec\nfrom typing import Annotated\n"
        "print(msgspec.json.decode(b'\"ab\"', type=Annotated[str, msgspec.Meta(pattern='^a')]) == 'ab')",
        "import msgspec\nprint(msgspec.toml.decode(b'a=1') == {'a': 1})",
        "import re\ntry:\n    re.missing\nexcept AttributeError as error:\n    print('missing' in str(error))",
        "lock = early.Lock()\nwith lock:\n    print(lock.locked())",
        "made = early.Lock, early.RLock\nimport _thread\nprint(made == (_thread.allocate_lock, _thread.RLock))",
        "lock = early.Lock\nearly.Event()\nimport threading\nprint(threading is not early and threading.Lock is lock)",
        "print(early.current_thread() is early.main_thread())\nimport threading\nassert threading.local is early.local",
        "got = []\nran = early.Thread(target=got.append, args=(1,))\nran.start()\nran.join()\nprint(got == [1])",
        "import _operator, operator\nprint(operator.itemgetter is _operator.itemgetter and operator.add(1, 2) == 3)",
        "import operator as late\nprint(late.__add__(1, 2) == 3)\nimport operator\n"
        "assert operator is not late and operator.add is late.add and '__file__' in vars(operator)",
        "import operator, pickle\nprint(pickle.loads(pickle.dumps(operator.itemgetter(1)))('ab') == 'b')",
        "import warnings\nwith warnings.catch_warnings(record=True) as caught:\n    warnings.warn('this')\n"
        "print([str(one.message) for one in caught] == ['this'])",
        "import warnings\nwarnings.simplefilter('error')\nimport _warnings\n"
        "try:\n    _warnings.warn('this')\nexcept UserWarning:\n    print(True)",
        "import _warnings, io\nsys.stderr = io.StringIO()\n_warnings.warn_explicit('this', UserWarning, 'file', 1)\n"
        "print('file:1: UserWarning: this' in sys.stderr.getvalue())",
        "import re\nfrom concurrent.futures import ThreadPoolExecutor as Pool\n"
        "print(set(Pool(8).map(lambda n: re.fullmatch('[0-9]+', str(n))[0] == str(n), range(64))) == {True})",
    ],
)
def test_it_is_the_same(asked: str) -> None:
    assert run(LATE + asked) == "True"


def test_what_is_loaded_stays() -> None:
    script = "import re, sys, threading\nimport builder.cli\n"
    script += "print(re is sys.modules['re'] and 're._parser' in sys.modules and threading is sys.modules['threading'])"
    assert run(script) == "True"


def test_an_interpreter_with_other_expressions_gets_the_real_ones() -> None:
    script = "import _sre, sys\nreal = _sre.compile\n"
    script += "_sre.compile = lambda *given: real(*given) if len(given[2]) > 1 else None\n"
    assert run(f"{script}import builder.cli\nprint('re._parser' in sys.modules)") == "True"
