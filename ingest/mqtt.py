"""Events from an MQTT broker: AWS IoT Core itself, or any other that they are republished to.

Owns the message's way: received by paho's thread, handed to one of ours, decoded, handed over, and acknowledged once
what it said is committed. An acknowledgement never leaves its connection: on the next one the same number may stand
for another message. MQTT 5, for its Receive Maximum: the broker stops at so many unacknowledged messages, so memory is
bounded while the writer is behind, and paho's thread is free to keep the connection alive.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from ingest.aws import Account
from ingest.broker import (
    UNACKNOWLEDGED,
    Refusal,
    make_client,
    no_connection,
    refusal,
    shown_the_door,
    sign,
    signer_of,
)
from ingest.decode import decode_message
from ingest.inbox import Delivery, Inbox
from ingest.ledger import Watched
from ingest.settings import Mqtt
from ingest.tally import Tally
from store.clock import Clock, system_clock
from store.errors import SourceError

if TYPE_CHECKING:
    from paho.mqtt.client import Client

log = logging.getLogger("thingline.mqtt")

_FIRST_S = 20  # how long the first connection may take
_AGAIN_S = 30  # between tries to subscribe, where that was refused
_FAILED = 128  # reason codes of MQTT 5 from here on are failures; this one is without a reason


class _Arrived(NamedTuple):
    """What came: a message, or (`payload` None) a sign that the connection lives."""

    connection: int
    at_ms: int
    watched: Watched | None
    mid: int = 0
    qos: int = 0
    payload: bytes | None = None


class MqttSource:
    """Receives from one broker by one persistent session. A Source.

    `check` connects, `run` hands over; `end` must follow both.
    """

    def __init__(
        self, broker: Mqtt, *, tally: Tally, account: Account | None = None, clock: Clock = system_clock
    ) -> None:
        self.name = f"mqtt:{broker.client_id}"
        self._broker = broker
        self._tally = tally
        self._clock = clock
        self._kept_ms = broker.session_ms
        self._arrived: queue.Queue[_Arrived] = queue.Queue(2 * UNACKNOWLEDGED)
        self._lock = threading.Lock()
        self._connection = 0  # counts; acknowledgements of earlier ones are not sent any more
        self._session_present = False
        self._connected_ms = 0
        self._since_ms: int | None = None  # subscribed since then, on this connection
        self._subscribe_at_s: float | None = None  # when to try again, where that was refused
        self._failure: Refusal | None = None  # as long as it lasts
        self._known = threading.Event()  # whether the first try worked
        self._ending = threading.Event()
        self._signer = signer_of(broker, account or Account())
        self._client = make_client(broker)
        self._client.on_pre_connect = self._on_pre_connect
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_log = self._on_log
        tally.begins(self.name)

    def check(self) -> None:
        """Connect and subscribe. Raises SourceError where that fails at first; later it is tried for ever.

        Must follow the opening of the store: where the broker begins a session for us, an ingester that ends before
        it could say so would leave a gap that nobody sees.
        """
        self._client.loop_start()
        if not self._known.wait(_FIRST_S):
            self._failed(refusal(0, f"no answer within {_FIRST_S} s"))
        failure = self._failure
        if failure is not None:
            self.end(within_s=1)
            raise SourceError(f"{self.name}: {failure.message}. {failure.advice}")

    def run(self, inbox: Inbox, stop: threading.Event) -> None:
        """Hand over what comes until `stop` is set, and then what came by then."""
        while not stop.is_set():
            if not self._hand_over(self._take(wait_s=1), inbox):
                return
            with self._lock:
                again = self._subscribe_at_s is not None and time.monotonic() > self._subscribe_at_s
            if again:
                self._subscribe()
        self._ending.set()
        while (arrived := self._take(wait_s=0)) and self._hand_over(arrived, inbox):
            pass

    def end(self, *, within_s: float) -> None:
        """Send what is acknowledged, and take leave; the broker keeps the session."""
        self._ending.set()
        self._client.disconnect()
        ending = threading.Thread(target=self._client.loop_stop, daemon=True)
        ending.start()
        ending.join(within_s)

    # --- Handing over: our thread ---------------------------------------------------------------------------

    def _take(self, *, wait_s: float) -> list[_Arrived]:
        taken: list[_Arrived] = []
        with suppress(queue.Empty):
            taken.append(self._arrived.get(timeout=wait_s) if wait_s else self._arrived.get_nowait())
            while len(taken) < UNACKNOWLEDGED:
                taken.append(self._arrived.get_nowait())
        return taken

    def _hand_over(self, taken: Sequence[_Arrived], inbox: Inbox) -> bool:
        return all(
            inbox.put(self._delivery(connection, list(arrived)))
            for connection, arrived in groupby(taken, key=lambda each: each.connection)
        )

    def _delivery(self, connection: int, arrived: Sequence[_Arrived]) -> Delivery:
        messages = [(each, each.payload) for each in arrived if each.payload is not None]
        weight = sum(len(payload) for _, payload in messages)
        self._tally.received(self.name, len(messages), weight, arrived[-1].at_ms)
        items = [
            item
            for each, payload in messages
            for item in decode_message(payload, now=self._clock, position=each.at_ms)
        ]
        numbers = [(each.mid, each.qos) for each, _ in messages]

        def settle() -> None:
            with self._lock:  # held, so that no new connection begins meanwhile
                if connection == self._connection:
                    for number, qos in numbers:
                        self._client.ack(number, qos)

        return Delivery(self.name, items, weight, settle, arrived[-1].watched)

    # --- Receiving: paho's thread ---------------------------------------------------------------------------

    def _subscribe(self) -> None:
        with self._lock:
            self._subscribe_at_s = None
        self._client.subscribe([(topic, 1) for topic in self._broker.topics])

    def _on_pre_connect(self, client: Client, _: Any) -> None:
        self._retire()
        if self._signer is not None:
            sign(client, self._broker, self._signer)

    def _on_connect(self, client: Client, _: Any, flags: Any, reason: Any, __: Any) -> None:
        if reason.is_failure:
            self._failed(refusal(reason.value, f"the connection was refused: {reason}"))
            return
        with self._lock:
            self._session_present = flags.session_present
            self._connected_ms = self._clock()
        self._subscribe()
        if flags.session_present:  # a broker may first want what it sends again acknowledged
            self._known.set()

    def _on_connect_fail(self, *_: Any) -> None:
        self._failed(no_connection(sys.exception(), self._broker))  # paho calls this while it handles it

    def _on_subscribe(self, client: Client, _: Any, __: int, reasons: Sequence[Any], ___: Any) -> None:
        refused = [reason for reason in reasons if reason.value >= _FAILED]
        if refused:
            with self._lock:
                self._subscribe_at_s = time.monotonic() + _AGAIN_S
            self._failed(refusal(refused[0].value, f"the subscription was refused: {refused[0]}"))
            return
        if any(reason.value == 0 for reason in reasons):
            log.warning("%s: the broker gives QoS 0 only: what comes while we are away is lost", self.name)
        with self._lock:
            self._since_ms = self._clock()
            failure, self._failure = self._failure, None
        if failure is not None:
            log.info("%s answers again", self.name)
        self._lives()
        self._known.set()

    def _on_message(self, client: Client, _: Any, message: Any) -> None:
        payload = bytes(message.payload)
        arrived = self._arrives()._replace(mid=message.mid, qos=message.qos, payload=payload)
        while not self._ending.is_set():  # a broker that keeps to Receive Maximum never has us wait
            with suppress(queue.Full):
                self._arrived.put(arrived, timeout=1)
                return

    def _on_log(self, client: Client, _: Any, __: int, text: str) -> None:
        if text == "Received PINGRESP":  # paho tells of it by no other way
            self._lives()

    def _on_disconnect(self, client: Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        was_subscribed = self._retire()
        if self._ending.is_set():
            return
        if reason.value == _FAILED and not was_subscribed:
            self._failed(shown_the_door())
        else:
            self._failed(refusal(reason.value, f"the connection was lost: {reason}"))

    def _retire(self) -> bool:
        """Send no more acknowledgements on this connection; tell whether it could have brought anything."""
        with self._lock:
            self._connection += 1
            was_subscribed = self._since_ms is not None or self._session_present
            self._since_ms, self._session_present = None, False
            return was_subscribed

    def _lives(self) -> None:
        with suppress(queue.Full):  # the next sign says the same, and more
            self._arrived.put_nowait(self._arrives())

    def _arrives(self) -> _Arrived:
        """Note that something came, and say what that says of the path."""
        now_ms = self._clock()
        with self._lock:
            if self._since_ms is None:
                return _Arrived(self._connection, now_ms, None)
            to_ms = max(now_ms, self._since_ms)  # clocks are set back
            # A session that the broker still had kept what came; it cannot be older than its expiry.
            unbroken_ms = self._connected_ms - self._kept_ms if self._session_present else None
            return _Arrived(self._connection, now_ms, Watched(self._since_ms, to_ms, unbroken_ms))

    def _failed(self, failure: Refusal) -> None:
        """Say what is wrong, once as long as it lasts; paho tries again."""
        self._tally.failed(self.name, failure.trouble.value)
        with self._lock:
            is_new, self._failure = self._failure is None, self._failure or failure
        if is_new and self._known.is_set():
            log.error("%s: %s. %s", self.name, failure.message, failure.advice)
        self._known.set()
