"""The fuzzer's invariant over the wire samples, over bytes of Hypothesis, and over what the fuzzer once found."""

from __future__ import annotations

import base64
import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.decode import decode_message
from store.model import Rejected
from tests.fuzz.decoder import FRAGMENTS
from tests.fuzz.invariant import NOW_MS, WRAPPINGS, hold, hold_on
from tests.ingest.test_decode_laws import RUBBISH
from tests.wire import samples

HOME = Path(__file__).parent.parent.parent
WRAPPING = st.integers(0, len(WRAPPINGS) - 1)


@pytest.mark.parametrize("wrapping", range(len(WRAPPINGS)))
@pytest.mark.parametrize("name", samples())
def test_every_sample_in_every_wrapping_keeps_the_invariant(name: str, wrapping: int) -> None:
    hold(bytes([wrapping]) + samples()[name])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(samples()[draw(st.sampled_from(sorted(samples())))])
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 12))] = draw(st.sampled_from([*FRAGMENTS, b""]))
    return bytes(data)


@settings(max_examples=300)
@given(WRAPPING, st.one_of(RUBBISH, mutated()))
def test_bytes_of_any_kind_keep_the_invariant(wrapping: int, data: bytes) -> None:
    hold(bytes([wrapping]) + data)


@pytest.mark.parametrize(
    "packed", [gzip.compress(b"", mtime=0), gzip.compress(b" \n", mtime=0), b"\xef\xbb\xbf"]
)
def test_an_envelope_around_packed_nothing_leaves_a_trace(packed: bytes) -> None:
    """Hypothesis found it: what was empty only once unpacked went without a word."""
    body = base64.b64encode(packed)
    for message in (b'{"Records":[{"body":"' + body + b'"}]}', b'"' + body + b'"'):
        (item,) = decode_message(message, now=lambda: NOW_MS)
        assert isinstance(item, Rejected)
        assert (item.reason, "is empty" in item.detail) == ("not-json", True)


def test_how_much_of_a_line_has_arrived_does_not_show_in_what_is_said_of_it() -> None:
    """The fuzzer found it: whether a broken object stands in binary was judged by what was there of its line."""
    hold_on(b'fx\n{"k":},\x03\n')


def test_a_loss_is_seen() -> None:
    """The invariant can fail: a decoder that forgets, and one that trips, are found out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.fuzz.invariant.decode_message", lambda *_, **__: [])
        with pytest.raises(AssertionError):
            hold_on(b'{"a": 1}')


@pytest.mark.soak
def test_a_minute_of_guided_fuzzing_finds_nothing(tmp_path: Path) -> None:
    """Needs the extra `fuzz`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.decoder", "-max_total_time=60", f"-artifact_prefix={tmp_path}/"],
        cwd=HOME,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    print("\n" + done.stderr.splitlines()[-1])
