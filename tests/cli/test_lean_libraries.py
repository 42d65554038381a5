"""What httpx does when it was loaded by the command line, without the modules that it hardly uses: the same as ever.

Each script is run twice, in a process that knows the command line and in one that does not, and says the same.
"""

from __future__ import annotations

import gzip
import http.server
import inspect
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator

import pytest
import zstandard

from builder.cli.lean_libraries import Inspect
from tests.support.http import serving

TEXT = b"text " * 1000
ENCODED = {
    "/identity": (None, TEXT),
    "/gzip": ("gzip", gzip.compress(TEXT)),
    "/deflate": ("deflate", zlib.compress(TEXT)),
    "/zstd": ("zstd", zstandard.ZstdCompressor().compress(TEXT)),
    "/broken": ("zstd", b"no zstd"),
}
UNUSED = (
    "anyio", "certifi", "email.parser", "hashlib", "http.client", "http.cookiejar", "httpcore._async.http11",
    "httpx._multipart", "idna", "importlib.resources", "inspect", "json", "logging", "mimetypes", "pathlib",
    "pygments", "stringprep", "urllib.request", "zstandard",
)  # fmt: skip
"""What a request to a registry needs nothing of."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {"Content-Type": "text/plain; charset=latin-1"}
        status = 200
        path = self.path.removeprefix("http://far.example.com")
        if path in ENCODED:
            encoding, answer = ENCODED[path]
            headers |= {"Content-Encoding": encoding} if encoding else {}
        elif path == "/digest" and not self.headers.get("Authorization", "").startswith("Digest "):
            status, answer = 401, b""
            headers["WWW-Authenticate"] = 'Digest realm="a, b", qop="auth,auth-int", nonce="n", algorithm=SHA-256'
        elif path == "/moved":
            status, answer = 307, b""
            headers["Location"] = "/x"
        else:
            told = {name.lower(): value for name, value in self.headers.items() if name.lower() != "content-type"}
            answer = json.dumps({"asked": self.path, "headers": told, "body": body.decode("latin-1")}).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if path == "/cookies":
            self.send_header("Set-Cookie", "a=1; Path=/")
            self.send_header("Set-Cookie", "b=2; Path=/elsewhere")
            self.send_header("Set-Cookie", "c=3; Domain=example.com")
        if path == "/forget":
            self.send_header("Set-Cookie", "a=; Path=/; Max-Age=0")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_PUT = do_GET


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with serving(Handler) as url:
        yield url


def python(code: str, origin: str, *, lean: bool, **environ: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    prelude = f"import sys\norigin = {origin!r}\nimport httpx, httpcore\n"
    if lean:
        prelude = f"import builder.cli\n{prelude}assert not set({UNUSED}) & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + code], capture_output=True, text=True, check=False, env=kept | environ
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


COOKIES = """
client = httpx.Client()
print(client.get(origin + '/cookies').cookies, len(client.cookies), bool(client.cookies))
for path in ('/x', '/elsewhere/y', '/forget', '/x'):
    answer = client.get(origin + path)
    print(path, answer.json()['headers'].get('cookie'), answer.cookies, len(client.cookies))
client.cookies.set('d', '4')
print(client.get(origin + '/x').json()['headers']['cookie'], client.cookies.get('d'))
client.cookies.clear()
print(len(client.cookies), client.get(origin + '/x', cookies={'e': '5'}).json()['headers']['cookie'])
print(len(httpx.Cookies([('f', '6')])), httpx.Cookies(httpx.Cookies({'g': '7'})))
"""
ENCODINGS = """
for path in ('identity', 'gzip', 'deflate', 'zstd'):
    print(path, len(httpx.get(f'{origin}/{path}').content))
try:
    httpx.get(origin + '/broken')
except httpx.DecodingError as error:
    print(type(error).__name__, error)
print(httpx.Client().headers['accept-encoding'], httpx.get(origin + '/gzip').encoding)
"""
DIGEST = """
answer = httpx.get(origin + '/digest', auth=httpx.DigestAuth('u', 'p')).json()
given = answer['headers']['authorization']
import re
print(*re.findall(r'([a-z]+)=', given), re.search('realm="[^"]*"', given)[0])
"""
BODIES = """
def pieces():
    yield b'a'
    yield b'b'
def told(answer):
    return answer.json()['body'], answer.json()['headers'].get('content-length')
once = pieces()
print(told(httpx.put(origin, content=pieces())), told(httpx.put(origin, content=[b'c', b'd'])))
request = httpx.Request('PUT', origin, content=once)
with httpx.Client() as client:
    print(told(client.send(request)))
    try:
        client.send(request)
    except httpx.StreamConsumed as error:
        print(type(error).__name__)
print(told(httpx.post(origin, json={'a': [1, None]})), told(httpx.post(origin, data={'a': 'ä'})))
print('name="f"; filename="n.txt"' in told(httpx.post(origin, files={'f': ('n.txt', b'x')}))[0])
headers = {'Content-Type': 'multipart/form-data; boundary=here'}
print(told(httpx.post(origin, data={'a': '1'}, files={'f': ('n', b'x', 'text/plain')}, headers=headers)))
"""
HOSTS = """
for text in ('bücher.example', 'a' * 64, 'ＡＢＣ'):
    try:
        print(text.encode('idna'))
    except UnicodeError as error:
        print(error)
print(httpx.URL('http://Bücher.example/').raw_host, httpx.URL('http://xn--bcher-kva.example/').host)
for text in ('http://\\u2603\\u2603.' + 'x' * 70 + '.example/', 'http://[::1', 'http://a:b/'):
    try:
        print(httpx.URL(text).raw_host)
    except httpx.InvalidURL as error:
        print(error)
"""
LOGS = """
import io, logging
for level in (logging.WARNING, logging.INFO, logging.DEBUG):
    stream = io.StringIO()
    logging.basicConfig(level=level, stream=stream, format='%(name)s %(levelname)s %(message)s', force=True)
    httpx.get(origin)
    lines = [line for line in stream.getvalue().splitlines() if 'Date' not in line and 'object at' not in line]
    print(*lines, sep='\\n')
print(logging.getLogger('httpx').isEnabledFor(10), logging.getLogger('other').isEnabledFor(10))
"""
FUTURES = """
import contextlib, io
from concurrent.futures import Future, ThreadPoolExecutor, wait
with ThreadPoolExecutor(2) as pool:
    print(sorted(future.result() for future in wait([pool.submit(pow, 2, n) for n in range(3)]).done))
    print(type(pool.submit(divmod, 1, 0).exception()).__name__)
future = Future()
future.add_done_callback(lambda _: 1 / 0)
with contextlib.redirect_stderr(io.StringIO()) as told:
    future.set_result(None)  # which is told by a logger that nobody has asked for anything
print(told.getvalue().splitlines()[0][:26])
"""
AUTHORITIES = """
import os, certifi
print(os.path.isfile(certifi.where()), len(httpx.create_ssl_context().get_ca_certs()) > 10)
print(certifi.contents()[:3], certifi.__spec__.loader.__class__.__name__, httpx.__loader__.__class__.__name__)
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (COOKIES, "/x a=1 <Cookies[]> 2\n/elsewhere/y "),
        (ENCODINGS, "zstd 5000\nDecodingError "),
        (DIGEST, 'username realm nonce uri response algorithm qop nc cnonce realm="a, b"'),
        (BODIES, "StreamConsumed"),
        (HOSTS, "label too long)\nb'abc'\nb'xn--bcher-kva.example' bücher.example"),
        (LOGS, "httpcore.http11 DEBUG "),
        (FUTURES, "[1, 2, 4]\nZeroDivisionError\nexception calling callback\n"),
        (AUTHORITIES, "True True\n"),
    ],
    ids=["cookies", "encodings", "digest", "bodies", "hosts", "logs", "futures", "authorities"],
)
def test_the_same_as_ever(origin: str, code: str, said: str) -> None:
    lean = python(code, origin, lean=True)
    assert said in lean
    assert lean == python(code, origin, lean=False)


PROXIES = """
def attempt(url):
    try:
        print(httpx.get(url, timeout=5).json()['asked'])
    except (httpx.HTTPError, ImportError, ValueError) as error:
        print(type(error).__name__, error)
attempt('http://far.example.com/x')
attempt(origin + '/x')
"""


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"http_proxy": "ORIGIN"}, "http://far.example.com/x\nhttp://127.0.0.1"),
        ({"HTTP_PROXY": "ORIGIN", "no_proxy": "127.0.0.1"}, "http://far.example.com/x\n/x\n"),
        ({"ALL_PROXY": "ORIGIN", "NO_PROXY": "*", "OTHER_PROXY": "x"}, "ConnectError"),
        ({"all_proxy": "socks5://127.0.0.1:1"}, "socksio"),
        ({"HTTP_PROXY": "nonsense://x"}, "ValueError"),
    ],
    ids=["lower case", "exceptions", "all exceptions", "socks", "nonsense"],
)
def test_proxies_of_the_environment(origin: str, environ: dict[str, str], said: str) -> None:
    environ = {name: value.replace("ORIGIN", origin) for name, value in environ.items()}
    lean = python(PROXIES, origin, lean=True, **environ)
    assert said in lean
    assert lean == python(PROXIES, origin, lean=False, **environ)


def test_a_plain_request_loads_none_of_it(origin: str) -> None:
    """Nor does one that is redirected, though httpx makes a jar for the cookies of the next request."""
    code = (
        "from builder.config import Config\nfrom builder.registry.endpoints import Endpoint\n"
        "from builder.registry.transport import Session\n"
        "with Session(Config(), {}) as session:\n"
        "    place = Endpoint('http', origin[7:], '')\n"
        "    print(session.request(place, 'PUT', '/x', scopes=(), body=lambda: iter([b'12'])).status)\n"
        "    print(session.request(place, 'GET', '/moved', scopes=()).status)\n"
        "with httpx.Client(transport=httpx.HTTPTransport(verify=False), trust_env=False) as client:\n"
        "    print(client.get(origin + '/moved', follow_redirects=True).url.path)\n"
        f"print(sorted(set({UNUSED}) & set(sys.modules) - {{'certifi'}}))\n"
    )
    assert python(code, origin, lean=True) == "200\n200\n/x\n[]\n"


def test_loggers_speak_from_warnings_on(origin: str) -> None:
    """As ever when nothing was set up: on standard error, by the handler of last resort."""
    code = (
        "from httpx._client import logger\nlogger.info('no')\nassert 'logging' not in sys.modules\n"
        "import contextlib, io\nwith contextlib.redirect_stderr(io.StringIO()) as told: logger.warning('yes')\n"
        "print(repr(told.getvalue()))\n"
    )
    assert python(code, origin, lean=True) == "'yes\\n'\n"


def test_what_is_asked_of_classes_while_h11_is_loaded() -> None:
    class Some:
        __module__ = "h11._events"
        a: int

        def __init__(self, b: int) -> None: ...

    stand_in = Inspect()
    assert str(stand_in.signature(Some)) == str(inspect.signature(Some))
    loaded = sys.modules["inspect"]
    try:
        for ask in (stand_in.signature, stand_in.get_annotations):
            sys.modules["inspect"] = stand_in
            ask(Some)
            assert sys.modules["inspect"] is stand_in
        assert stand_in.get_annotations(Some) == inspect.get_annotations(Some)
        assert str(stand_in.signature(obj=Some)) == str(inspect.signature(Some))  # the real module's answer
        assert sys.modules["inspect"] is not stand_in
    finally:
        sys.modules["inspect"] = loaded
    assert stand_in.get_annotations(obj=Some) == inspect.get_annotations(Some)
    assert [stand_in.isgenerator(value) for value in ((n for n in "a"), iter("a"), "a")] == [True, False, False]
