"""Finds out beside a build's first command whether its image may be pushed: who may not need not wait to be told so.

kaniko asks before it builds anything (`CheckPushPermissions`). Here nothing waits for the answer, and a build that runs
no command is over as soon as it could be asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from builder.errors import BuilderError, RegistryError
from builder.oci.reference import Reference

if TYPE_CHECKING:
    from builder.registry.transport import Session


class PushCheck:
    """Asks for the repository of each of the `names`, once `begin` was called. Where one refuses `error` is what a push
    would raise, and `refuse` is called, from another thread. What else goes wrong is left to the push."""

    def __init__(
        self, names: Iterable[Reference], connect: Callable[[], Session], refuse: Callable[[], object]
    ) -> None:
        self.error: BuilderError | None = None
        self._names = {(name.domain, name.path): name for name in names}
        self._connect = connect
        self._refuse = refuse
        self._lock = threading.Lock()
        self._closed = False
        self._session: Session | None = None

    def begin(self) -> None:
        """Ask, in a thread."""
        threading.Thread(target=self._ask, name="push-check", daemon=True).start()

    def close(self) -> None:
        """End what is under way: nobody wants to know any more."""
        with self._lock:
            self._closed = True
            session = self._session
        if session is not None:
            session.close()

    def cause_of(self, error: BaseException) -> BaseException:
        """What a build is to end with that ends with `error`: a refusal has interrupted its steps."""
        return self.error if self.error is not None and isinstance(error, BuilderError) else error

    def _ask(self) -> None:
        from builder.registry.failures import Refused
        from builder.registry.permission import check_push

        try:
            session = self._connect()
        except BuilderError:
            return
        with self._lock:
            if self._closed:
                return
            self._session = session
        with session:
            for name in self._names.values():
                try:
                    check_push(session, name)
                except Refused as error:
                    with self._lock:
                        if self._closed:
                            return
                        self.error = error
                    self._refuse()
                    return
                except RegistryError:
                    continue
                except BuilderError:  # it was closed
                    return
