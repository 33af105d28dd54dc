"""How a source of AWS's stands: what is wrong with it is said once, waited for ever longer, and said to be over."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ingest.aws import Failure, Trouble, errors, failure_of
from ingest.tally import QUIET_MS, Tally
from store.errors import SourceError

log = logging.getLogger("thingline.source")

_PAUSES_S = (1, 2, 5, 15, 30, 60)  # after failures in a row


class Standing:
    """Of one source; any thread may tell it.

    `what` it is, the `permissions` that reading it takes, and for how long it may be silent.
    """

    def __init__(
        self, name: str, tally: Tally, *, what: str, permissions: str, quiet_ms: int = QUIET_MS
    ) -> None:
        self._name = name
        self._tally = tally
        self._what = what
        self._permissions = permissions
        self._failing = threading.Event()
        tally.begins(name, quiet_ms=quiet_ms)

    def first(self, ask: Callable[[], object]) -> None:
        """Ask for the first time. Raises SourceError where it is not there or not ours: that will not pass."""
        try:
            ask()
        except errors() as error:
            failure = failure_of(error)
            if failure.trouble is not Trouble.AWAY:
                raise SourceError(f"{self._name}: {failure.message}. {self._advice(failure)}") from error
            log.warning("%s does not answer: %s", self._name, failure.message)

    def failed(self, failure: Failure, stop: threading.Event, failures: int) -> None:
        """Say what is wrong, if that is new; wait before the next try, after so many failures before this one."""
        self._tally.failed(self._name, failure.trouble.value)
        if not self._failing.is_set() and failure.trouble is not Trouble.THROTTLED:
            self._failing.set()
            log.error("%s: %s. %s", self._name, failure.message, self._advice(failure))
        stop.wait(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])

    def answered(self) -> None:
        """Say that it is over, if anything was wrong."""
        if self._failing.is_set():
            self._failing.clear()
            log.info("%s answers again", self._name)

    def _advice(self, failure: Failure) -> str:
        match failure.trouble:
            case Trouble.GONE:
                return f"Create the {self._what} and let the rule write to it; it is read as soon as it is there."
            case Trouble.DENIED:
                return f"Allow {self._permissions} on it."
            case Trouble.CREDENTIALS:
                return "Renew the credentials; it is read on with the new ones where boto3 can find them."
            case Trouble.REFUSED:
                return f"Check the name of the {self._what}, and its Region."
            case _:
                return "Trying again."
