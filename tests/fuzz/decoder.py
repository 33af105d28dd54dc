"""The coverage-guided fuzzer of the decoder: `python -m tests.fuzz.decoder -max_total_time=600 [FOLDER]`.

Needs the extra `fuzz`. All arguments are libFuzzer's (`-runs=N`, `-help=1`); a folder keeps the inputs that reached
new code. An input that breaks the invariant (tests/fuzz/invariant.py) is written to `crash-...` in this folder, one
that takes longer than a minute to `timeout-...`; either belongs into tests/fuzz/test_decoder.py, under a name.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.wire import samples

FRAGMENTS = [
    b"{", b"}", b"[", b"]", b"}{", b"},{", b'{"', b'":', b'","', b'\\"', b"\\u0000", b"\\ud800", b"\\n", b"\n",
    b"\r\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b\x08", b"null", b"true", b"false", b"NaN", b"-Infinity",
    b"1e999", b"0.1", b"-1", b"9223372036854775808", b"1790000000000", b"1790000000", b'"2026-11-01T03:12:00Z"',
    b'"clientId":"a"', b'"eventType":"connected"', b'"eventType":"disconnected"', b'"timestamp":1790000000000',
    b'"sessionIdentifier":"s"', b'"versionNumber":0', b'"disconnectReason":"', b'"thingName":"t"', b'"topic":"',
    b"$aws/events/presence/connected/", b'"connected":true', b'"disconnectReason":"NONE"', b'"ResponseMetadata":{}',
    b'"things":[', b'"connectivity":{', b'"knownAt":1790000000000', b'"askedAt":1790000000000', b'"check":{',
    b'"event":{', b'"registry":{', b'"watch":{', b'"source":"', b'"from":', b'"to":', b'"api":"SearchIndex"',
    b'"api":"GetConnection"', b'"response":{', b'"error":"', b'"thingline":"recording"', b'"version":1',
    b'"Records":[', b'"Messages":[', b'"body":"', b'"Message":"', b'"TopicArn":"', b'"Sns":{', b'"kinesis":{',
    b'"data":"', b'"partitionKey":"', b'"detail":{', b'"detail-type":"', b'"base64OriginalPayload":"', b"eyJj",
    b'"eventType":"THING_EVENT"', b'"operation":"', b'"connectedSince":', b'"disconnectedSince":',
]  # fmt: skip


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["ingest"]):
        from tests.fuzz.invariant import WRAPPINGS, hold

    with tempfile.TemporaryDirectory(prefix="thingline-fuzz-") as folder:
        seeds = Path(folder, "seeds")
        seeds.mkdir()
        for name, data in samples().items():
            for wrapping in range(len(WRAPPINGS)):
                (seeds / f"{name}-{wrapping}").write_bytes(bytes([wrapping]) + data)
        words = Path(folder, "words")
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in FRAGMENTS))
        given = sys.argv[1:]
        kept = [] if any(not argument.startswith("-") for argument in given) else [str(Path(folder, "kept"))]
        for new in kept:
            Path(new).mkdir()
        defaults = [f"-dict={words}", "-timeout=60", "-max_len=4096", "-rss_limit_mb=2048"]
        atheris.Setup([sys.argv[0], *defaults, *given, *kept, str(seeds)], hold)
        atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
