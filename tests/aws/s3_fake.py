"""A bucket of S3, faked over real HTTP for real boto3: listings in pages, ranges, objects of any time, and faults.

moto's server gives every object the time of its writing and answers every call; here an object may be older, come
behind the last key, be gone or cut short. Answers are held to botocore's model, as in json_fake.py.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, quote_plus, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.aws.iot_fake import Fault
from tests.aws.json_fake import Failed, JsonFake

SLOW_DOWN = Fault(503, "SlowDown", "Please reduce your request rate.")
NO_BUCKET = Fault(404, "NoSuchBucket", "The specified bucket does not exist")
NO_KEY = Fault(404, "NoSuchKey", "The specified key does not exist.")
ARCHIVED = Fault(403, "InvalidObjectState", "The operation is not valid for the object's storage class")
OTHER = Fault(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")


@dataclass(frozen=True, slots=True)
class Held:
    """An object."""

    body: bytes
    at_s: int

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.body).hexdigest()}"'


class Bucket:
    """What a bucket holds, and how often each key was asked for. Every method may be called by any thread."""

    def __init__(self) -> None:
        self.objects: dict[str, Held] = {}
        self.faults: dict[str, Fault] = {}  # by key
        self.cut: dict[str, int] = {}  # of keys whose next bodies break off after so many bytes
        self.got: Counter[str] = Counter()

    def put(self, key: str, body: bytes, *, age_s: int = 0) -> None:
        """Write an object, as if so long ago."""
        self.objects[key] = Held(body, int(time.time()) - age_s)

    def has_given(self, count: int) -> bool:
        """Tell whether so many objects were asked for, those that were asked for again included."""
        return self.got.total() >= count


class S3Fake(JsonFake):
    """The server, and its buckets by name."""

    service, variable = "s3", "AWS_ENDPOINT_URL_S3"

    def __init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.page = 1_000  # keys
        self.listed: list[str] = []  # after which key each page began
        self.lock = threading.Lock()
        super().__init__()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        return _handler(self)

    def bucket(self, name: str) -> Bucket:
        if name not in self.buckets:
            raise Failed(NO_BUCKET)
        return self.buckets[name]

    def ListObjectsV2(self, asked: dict[str, Any]) -> dict[str, Any]:
        bucket = self.bucket(asked["Bucket"])
        prefix, after = asked.get("prefix", ""), asked.get("continuation-token", asked.get("start-after", ""))
        self.listed.append(after)
        keys = sorted(bucket.objects, key=str.encode)
        keys = [key for key in keys if key.startswith(prefix) and key.encode() > after.encode()]
        most = min(int(asked.get("max-keys", 1_000)), self.page)
        contents = [
            {
                "Key": quote_plus(key, safe="/") if asked.get("encoding-type") == "url" else key,
                "LastModified": bucket.objects[key].at_s,
                "ETag": bucket.objects[key].etag,
                "Size": len(bucket.objects[key].body),
                "StorageClass": "STANDARD",
            }
            for key in keys[:most]
        ]
        said: dict[str, Any] = {
            "Name": asked["Bucket"],
            "Prefix": quote_plus(prefix, safe="/"),
            "KeyCount": len(contents),
            "MaxKeys": most,
            "EncodingType": "url",
            "IsTruncated": len(keys) > most,
            "Contents": contents,
        }
        if len(keys) > most:
            said["NextContinuationToken"] = keys[most - 1]
        return said

    def GetObject(self, asked: dict[str, Any]) -> dict[str, Any]:
        bucket, key = self.bucket(asked["Bucket"]), asked["Key"]
        with self.lock:
            bucket.got[key] += 1
        if key in bucket.faults:
            raise Failed(bucket.faults[key])
        if key not in bucket.objects:
            raise Failed(NO_KEY)
        held = bucket.objects[key]
        if asked.get("IfMatch", held.etag) != held.etag:
            raise Failed(OTHER)
        return {
            "ETag": held.etag,
            "Last-Modified": held.at_s,
            "Content-Length": len(held.body) - asked["From"],
            "Body": held.body[asked["From"] :].decode("latin-1"),
        }


def _xml(name: str, value: Any) -> str:
    if isinstance(value, list):
        return "".join(_xml(name, each) for each in value)
    if isinstance(value, dict):
        text = "".join(_xml(inner, each) for inner, each in value.items())
    elif name == "LastModified":
        text = datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    else:
        text = str(value).lower() if isinstance(value, bool) else escape(str(value))
    return f"<{name}>{text}</{name}>"


def _handler(fake: S3Fake) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked: dict[str, Any] = {name: each[0] for name, each in parse_qs(parts.query).items()}
            bucket, _, key = parts.path[1:].partition("/")
            asked["Bucket"] = bucket
            operation = "GetObject" if key else "ListObjectsV2"
            if key:
                first = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))
                assert first is not None
                asked |= {"Key": unquote(key), "From": int(first[1])}
                if "If-Match" in self.headers:
                    asked["IfMatch"] = self.headers["If-Match"]
            fault, said = fake.answer(operation, asked)
            status, headers, body = 200 if fault is None else fault.status, {}, b""
            if fault is not None:
                body = _xml("Error", {"Code": fault.code, "Message": fault.message}).encode()
            elif key:
                body = said["Body"].encode("latin-1")
                headers = {
                    "ETag": said["ETag"],
                    "Last-Modified": formatdate(said["Last-Modified"], usegmt=True),
                }
            else:
                body = _xml("ListBucketResult", said).encode()
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            self.wfile.write(f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode())
            cut = fake.buckets[bucket].cut.pop(unquote(key), None) if bucket in fake.buckets else None
            self.wfile.write(body[:cut])
            self.close_connection = cut is not None

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serving_buckets() -> Iterator[S3Fake]:
    """Serve, and hold every answer to the model at the end."""
    fake = S3Fake()
    try:
        yield fake
    finally:
        fake.close()
    assert fake.unlike == []
