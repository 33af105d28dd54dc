"""What fakes of AWS's JSON services share: one HTTP server, faults, counted calls, answers held to botocore's model."""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import botocore.session

from tests.aws.iot_fake import Fault, unlike_model

DENIED = Fault(403, "AccessDenied", "Access to the resource is denied.")
EXPIRED = Fault(403, "ExpiredToken", "The security token included in the request is expired")
AWAY = Fault(503, "ServiceUnavailable", "try again")


class Failed(Exception):
    """An operation that ends in an error of AWS's."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault


class JsonFake:
    """A service on loopback. Subclasses have a method for each operation, named as AWS names it."""

    service: str
    variable: str  # of the environment, that leads boto3 here

    def __init__(self) -> None:
        self.faults: dict[str, Fault] = {}  # by operation, or * for all, as long as they stand here
        self.calls: Counter[str] = Counter()
        self.failed = 0  # calls
        self.unlike: list[str] = []  # answers that were not as the model says
        model = botocore.session.get_session().get_service_model(self.service)
        self._shapes = {name: model.operation_model(name).output_shape for name in model.operation_names}
        self._server = _Server(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """Give what speaks the protocol."""
        return _handler(self)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def has_failed(self, calls: int) -> bool:
        return self.failed >= calls

    @property
    def environment(self) -> dict[str, str]:
        """Give what leads boto3 here."""
        return {
            self.variable: self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing-secret",
            "AWS_DEFAULT_REGION": "eu-central-1",
        }

    def answer(self, operation: str, asked: dict[str, Any]) -> tuple[Fault | None, dict[str, Any]]:
        self.calls[operation] += 1
        try:
            fault = self.faults.get(operation) or self.faults.get("*")
            if fault is not None:
                raise Failed(fault)
            run: Callable[[dict[str, Any]], dict[str, Any]] = getattr(self, operation)
            said = run(asked)
        except Failed as failed:
            self.failed += 1
            return failed.fault, {}
        except Exception as error:
            self.unlike.append(f"{operation}: a bug of the fake's: {error!r}")
            raise
        shape = self._shapes[operation]
        if shape is not None:
            self.unlike += unlike_model(shape, said, operation)
        return None, said


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no error here."""


def _handler(fake: JsonFake) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            operation = self.headers["X-Amz-Target"].rpartition(".")[2]
            fault, said = fake.answer(operation, json.loads(body))
            if fault is not None:
                said = {"__type": f"com.amazonaws#{fault.code}", "message": fault.message}
            text = json.dumps(said).encode()
            head = (
                f"HTTP/1.1 {200 if fault is None else fault.status} X\r\n"
                f"Content-Type: {self.headers['Content-Type']}\r\n"
                f"x-amzn-RequestId: {uuid.uuid4()}\r\nContent-Length: {len(text)}\r\n\r\n"
            )
            self.wfile.write(head.encode() + text)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
