"""An SSH agent for one step: a socket of its own, with the owner and mode that the mount asks for.

What comes in is passed on to the user's agent if it lists keys or signs with one; everything else (adding and removing
keys, locking, extensions) is refused, as by BuildKit: a build may use the keys and not change the agent. The protocol
is draft-ietf-sshm-ssh-agent: messages of a length (4 bytes), a type and a body, each request with one answer.
"""

from __future__ import annotations

import os
import socket
import stat
import threading

from builder.errors import StepFailed

_REQUEST_IDENTITIES, _SIGN_REQUEST = 11, 13
_ALLOWED = (_REQUEST_IDENTITIES, _SIGN_REQUEST)
_FAILURE = b"\0\0\0\1\x05"
_LONGEST = 256 * 1024  # what OpenSSH's agent takes


def check_agent(name: str, path: str) -> None:
    """Raises StepFailed unless there is a socket."""
    try:
        found = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError as error:
        raise StepFailed(f"SSH agent {name!r} cannot be used: {error.strerror}", place=path) from error
    if not found:
        raise StepFailed(
            f"SSH agent {name!r} is not a socket",
            place=path,
            remedy="start an agent (eval $(ssh-agent)), add the key (ssh-add FILE), and give --ssh ID=$SSH_AUTH_SOCK",
        )


class AgentSocket:
    """Listens at `path` in an existing directory until it is closed. `agent` is the socket of the user's agent."""

    def __init__(self, agent: str, path: str, *, mode: int, uid: int, gid: int) -> None:
        self._agent = agent
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # an address has at most 107 bytes, a path may have more
            self._listener.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        finally:
            os.close(directory)
        os.chmod(path, mode)
        os.chown(path, uid, gid)
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections; those that are open end with the step's processes."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            try:
                _connect(agent, self._agent)
                while (request := _message(connection)) is not None:
                    answer: bytes | None = _FAILURE
                    if request[4:5] and request[4] in _ALLOWED:
                        agent.sendall(request)
                        answer = _message(agent)
                    if answer is None:
                        return
                    connection.sendall(answer)
            except OSError:
                return  # one of the two has hung up


def _connect(agent: socket.socket, path: str) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        agent.connect(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _message(stream: socket.socket) -> bytes | None:
    """A message with its length in front; None at the end, and for one that is longer than any agent takes."""
    length = _exactly(stream, 4)
    if length is None or int.from_bytes(length, "big") > _LONGEST:
        return None
    body = _exactly(stream, int.from_bytes(length, "big"))
    return None if body is None else length + body


def _exactly(stream: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        piece = stream.recv(size - len(data))
        if not piece:
            return None
        data += piece
    return data
