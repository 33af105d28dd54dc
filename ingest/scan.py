"""Bytes of any shape in, JSON values with their positions out.

Owns where a value begins and ends: lines, pretty-printed objects, objects one after another with or without
commas, arrays of any length; and how to find the way back after what cannot be read. It knows nothing of what
a value means. It must never hold more than one envelope of input, and never raise for any bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ingest.inflate import Broken, inflate
from ingest.refusal import HEAD_BYTES, Run, Unreadable, is_binary, rejected
from ingest.syntax import (
    BAD,
    ENVELOPE_BYTES,
    JSON,
    MORE,
    NESTING,
    NOT_JSON,
    check_nesting,
    encloses,
    extent,
    parse,
    string_end,
)
from store.model import Rejected

SEPARATE_LINES = 100  # so many unreadable lines in a row are told one by one, the rest of them as one
_WINDOW_BYTES = 4 << 10  # what is tried at once before an end is searched for
_PATIENCE_BYTES = 64 << 10  # a line without an end is looked into from this size on

_AFTER = re.compile(rb"[ \t\r]*([\n,\]]|\Z)")
_LOOSE = re.compile(rb"[ \t\r,]*")
_SCALAR = re.compile(rb"-?[0-9][0-9.eE+-]*|true|false|null|NaN|-?Infinity")
_SCALARS = re.compile(rb"(?:[ \t\r]*,[ \t\r]*(?:-?[0-9][0-9.eE+-]*|true|false|null)(?=[ \t\r]*[,\]\n]))*")
_TOKEN = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
_JOINT = re.compile(rb'\}[ \t\r]{0,8}(?:,[ \t\r]{0,8})?(?=\{[ \t\r]{0,8}")')
_JOINT_BYTES = 64  # no joint is longer
_BOM = b"\xef\xbb\xbf"

_BINARY = "this is not text; if it is a file of another kind (an archive, UTF-16), convert it first"
_CUT = "the JSON stops before its end; send the whole record again"

_HUGE = -3


class Found(NamedTuple):
    """A JSON value, or what one of the shapes made of it, with its bytes."""

    position: int
    value: Any
    raw: bytes


class Scanner:
    """Finds the values in a stream of bytes.

    Call `fill` until it says False, and after each fill `walk` until `starved`. Whoever knows a quicker way
    through whole lines may, while `fresh`, read them from `buffer` at `at` and move `at` on. `shapes` are
    decoders of the most common records, tried first; the one that fits moves to the front. Each raises
    ValueError for what it does not know.
    """

    def __init__(
        self,
        chunks: Iterable[bytes],
        shapes: Iterable[Callable[[bytes], object]] = (),
        *,
        most_inflated: int | None = None,
    ) -> None:
        self.shapes = list(shapes)
        self.buffer = b""
        self.at = 0
        self.base = 0
        self.starved = False
        self.paused = False  # an empty chunk came: there is no more for now
        self._source = inflate(chunks, most=most_inflated)
        self._final = False
        self._broken: Broken | None = None
        self._line_start = True
        self._skipping = False
        self._run: Run | None = None
        self._lines_refused = 0
        self._depth = 0  # of top-level arrays that are open
        self._mark = 0  # where the separators before a value began, and the depth there
        self._mark_depth = 0
        self._mark_gap = b""
        self._array_at = 0
        self._need = 0
        self._endless: dict[int, tuple[int, int]] = {}  # objects that do not end, how, and seen how far

    @property
    def fresh(self) -> bool:
        """Whether `at` is the start of a line, with nothing pending from the lines above."""
        return self._line_start and self._run is None

    def fill(self) -> bool:
        """Read on. False when the source has ended and all of it was walked."""
        if self._final:
            return False
        rest = self.buffer[self.at :]
        parts = [rest]
        size = len(rest)
        self.base += self.at
        self.at = 0
        self.starved = self.paused = False
        for chunk in self._source:
            if isinstance(chunk, Broken):
                self._broken = chunk
                break
            if not chunk:
                self.paused = True
                self.starved = len(parts) == 1  # what is there was walked
                self.buffer = b"".join(parts)
                return True
            parts.append(chunk)
            size += len(chunk)
            if size >= (self._need or _PATIENCE_BYTES) or (not self._need and b"\n" in chunk):
                self.buffer = b"".join(parts)
                self._need = 0
                return True
        self.buffer = b"".join(parts)
        self._final = True
        return True

    def walk(self) -> Iterator[Found | Rejected]:
        """Yield what stands from `at` on; returns when `starved`, or as soon as `fresh` lines follow."""
        while True:
            if self._skipping:
                self._skip()
            elif self._separators():
                yield from self._value()
            if self.starved:
                break
            if self._line_start and self._run is None and not self._skipping:
                return
        if self._final:
            yield from self._finish()

    def _finish(self) -> Iterator[Rejected]:
        run = self._run
        self._run = None
        if self._broken is not None:
            if run is not None and run.new_line:
                yield run.rejected()
                run = None
            if run is None:
                run = Run(self.base + self.at, "", "", binary=False, cut=False)
            run.reason, run.detail = self._broken
        elif self._depth and run is None:
            detail = (
                f"the array that begins at byte {self._array_at} never ends; send it whole if more was there"
            )
            yield rejected("truncated-array", detail, b"", self.base + self.at)
        if run is not None:
            yield run.rejected()

    def _starve(self, *, need: int = 0) -> None:
        self.starved = True
        self._need = need

    def _advance(self, end: int) -> None:
        """Step over separators."""
        run = self._run
        if run is not None and not self._skipping:
            run.gap += self.buffer[self.at : end]
        self.at = end

    def _separators(self) -> bool:
        """Go to the next value; False when there is none in the buffer or a line began."""
        buffer = self.buffer
        self._set_mark()
        while True:
            loose = _LOOSE.match(buffer, self.at)
            self._advance(self.at if loose is None else loose.end())
            if self.at >= len(buffer):
                if self._final or self.at - self._mark > HEAD_BYTES:
                    self._starve()
                else:
                    self._wait(1)
                return False
            byte = buffer[self.at]
            if byte == 0x0A:
                self._advance(self.at + 1)
                self._line_start = True
                if self._run is None:
                    return False
                self._run.new_line = True
                self._set_mark()
            elif byte == 0x5B and self._depth < NESTING:
                if not self._depth:
                    self._array_at = self.base + self.at
                self._depth += 1
                self._advance(self.at + 1)
            elif byte == 0x5D and self._depth:
                self._depth -= 1
                self._advance(self.at + 1)
            elif byte == 0xEF and buffer.startswith(_BOM, self.at):
                self._advance(self.at + 3)
            elif byte == 0xEF and not self._final and len(buffer) - self.at < 3:
                self._wait(1)
                return False
            else:
                return True

    def _set_mark(self) -> None:
        self._mark, self._mark_depth = self.at, self._depth
        self._mark_gap = b"" if self._run is None else self._run.gap

    def _wait(self, size: int) -> None:
        """Go back to the mark until `size` more bytes are there."""
        need = len(self.buffer) - self._mark + size
        self.at, self._depth = self._mark, self._mark_depth
        if self._run is not None:
            self._run.gap = self._mark_gap
        self._starve(need=need)

    def _value(self) -> Iterator[Found | Rejected]:
        byte = self.buffer[self.at]
        if byte == 0x7B:
            yield from self._object()
        else:
            yield from self._text(quoted=byte == 0x22)

    def _found(self, end: int, value: Any) -> Iterator[Found | Rejected]:
        if self._run is not None:
            yield self._run.rejected()
            self._run = None
        self._lines_refused = 0
        self._line_start = False
        found = Found(self.base + self.at, value, self.buffer[self.at : end])
        self.at = end
        yield found

    def _object(self) -> Iterator[Found | Rejected]:
        buffer, at = self.buffer, self.at
        # The most common record holds no bracket but its own.
        end = buffer.find(b"}", at, at + _WINDOW_BYTES) + 1
        if end:
            end += buffer.startswith(b"}", end)
            raw = buffer[at:end]
            for index, shape in enumerate(self.shapes):
                try:
                    value = shape(raw)
                except (ValueError, RecursionError):
                    continue
                if index:
                    self.shapes.insert(0, self.shapes.pop(index))
                yield from self._found(end, value)
                return
        window = buffer[at : at + _WINDOW_BYTES]
        if window.isascii():
            try:
                value, size = JSON.raw_decode(window.decode("ascii"))
                check_nesting(window[:size], value)
            except (ValueError, RecursionError):
                pass
            else:
                yield from self._found(at + size, value)
                return
        end = self._extent()
        if end == MORE and not self._final:
            self._wait(min(len(buffer) - at, ENVELOPE_BYTES - (len(buffer) - at)))
            return
        if end >= 0:
            try:
                value = parse(buffer[at:end])
            except Unreadable as error:
                yield from self._refuse(at, end, error.reason, error.detail)
            else:
                yield from self._found(end, value)
        elif end == _HUGE:
            yield from self._refuse(at, None, "too-large", "more than 8 MiB without an end; split it")
        else:
            yield from self._refuse(at, None, "not-json", _CUT if end == MORE else NOT_JSON, cut=True)

    def _extent(self) -> int:
        """Find the end of the object, without going again over what is known to have none."""
        buffer, at = self.buffer, self.at
        outcome, seen_to = self._endless.get(self.base + at, (MORE, -1))
        holds = {
            BAD: True,
            MORE: self._final and seen_to == self.base + len(buffer),
            _HUGE: seen_to - (self.base + at) > ENVELOPE_BYTES - _PATIENCE_BYTES,
        }
        if holds[outcome]:
            return outcome
        stop = min(len(buffer), at + ENVELOPE_BYTES)
        end, places = extent(buffer, at, stop)
        if end == MORE and stop - at == ENVELOPE_BYTES:
            end = _HUGE
        self._endless = {self.base + place: (end, self.base + stop) for place in places[:NESTING]}
        return end

    def _text(self, *, quoted: bool) -> Iterator[Found | Rejected]:
        """Take a string that may enclose a record, quoted or bare base64; refuse all else."""
        buffer, at = self.buffer, self.at
        stop = min(len(buffer), at + ENVELOPE_BYTES)
        if quoted:
            end = string_end(buffer, at + 1, stop)
        else:
            token = _TOKEN.match(buffer, at, stop)
            if token is None or not encloses(token[0][:4].decode("ascii")):
                token = _SCALAR.match(buffer, at, stop)
            end = BAD if token is None else token.end()
        if end in (MORE, stop) and not self._final and len(buffer) - at < ENVELOPE_BYTES:
            self._wait(min(len(buffer) - at, ENVELOPE_BYTES - (len(buffer) - at)))
            return
        after = _AFTER.match(buffer, end) if end > 0 else None
        if after is not None and not after[1] and not self._final:
            self._wait(1)
            return
        if after is not None:
            raw = buffer[at:end]
            try:
                text = parse(raw) if quoted else raw.decode("ascii")
            except Unreadable:
                text = ""
            if encloses(text):
                yield from self._found(end, text)
                return
        loose = _LOOSE.match(buffer, self._mark)
        start = at if loose is None else loose.end()
        if after is not None and self._depth:
            more = _SCALARS.match(buffer, end, end + _WINDOW_BYTES)
            yield from self._refuse(start, end if more is None else more.end(), "not-json", NOT_JSON)
            return
        nested = buffer[at] == 0x5B
        detail = f"nested deeper than {NESTING}; flatten it" if nested else NOT_JSON
        reason = "too-deep" if nested else "not-json"
        yield from self._refuse(start, None, reason, detail, depth=self._mark_depth)

    def _refuse(
        self,
        start: int,
        end: int | None,
        reason: str,
        detail: str,
        *,
        cut: bool = False,
        depth: int | None = None,
    ) -> Iterator[Rejected]:
        """Begin or go on with a stretch that cannot be read, up to `end`, or else to where sense returns.

        `depth` is that of `start`, where arrays that were thought to open between there and here did not.
        """
        buffer = self.buffer
        line_end = buffer.find(b"\n", start, start + _WINDOW_BYTES)
        # Where the end is known too: how much of the line is there already must not show in what is said of it.
        if line_end < 0 and len(buffer) - start < _WINDOW_BYTES and not self._final:
            self._wait(_WINDOW_BYTES)
            return
        first = buffer[self.at]
        sample = buffer[start : start + _WINDOW_BYTES if line_end < 0 else line_end]
        binary = is_binary(sample, whole=line_end >= 0)
        if depth is not None:
            self._depth = depth
        run = self._run
        if run is not None:
            goes_on = (
                not run.new_line
                or (run.binary and (binary or first not in b'{["'))
                or (run.open and first in b'"}]-0123456789')
                or (self._lines_refused >= SEPARATE_LINES and first != 0x7B)
            )
            if not goes_on:
                yield run.rejected()
                run = None
        if run is None:
            self._lines_refused += 1
            detail = _BINARY if binary and reason == "not-json" else detail
            run = self._run = Run(self.base + start, reason, detail, binary=binary, cut=cut)
            self.at = start
        # Separators before a piece that goes on with the run are its gap already.
        run.new_line = False
        self._line_start = False
        if end is None:
            self._skipping = True
            # Past the first byte, so that the way back is searched behind what was refused.
            run.add(buffer[self.at : self.at + 1])
            self.at += 1
        else:
            run.add(buffer[self.at : end])
            self.at = end

    def _skip(self) -> None:
        """Go on in a stretch that cannot be read, up to its line's end or a seam between two objects."""
        buffer, run = self.buffer, self._run
        assert run is not None
        line_end = buffer.find(b"\n", self.at)
        stop = len(buffer) if line_end < 0 else line_end
        joint = _JOINT.search(buffer, self.at, stop)
        if joint is not None:
            stop = joint.end()
        if joint is not None or line_end >= 0:
            self._skipping = False
        elif not self._final:
            stop = max(self.at, stop - _JOINT_BYTES)
        run.add(buffer[self.at : stop])
        self.at = stop
        if self._skipping:
            self._starve(need=_JOINT_BYTES + 1)
