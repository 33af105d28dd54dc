"""What comes too late: evidence stamped before the horizon of a purge goes to quarantine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from ingest.encode import recording_line, to_json
from store.care import ALWAYS_MS, Care
from store.model import Event, Learned, Observation, Rejected

REASON = "before-horizon"
_HEAD = 64 * 1024


def sifted(batch: Sequence[Learned | Rejected], care: Care) -> Sequence[Learned | Rejected]:
    """Reject of a batch the events and checks that are stamped before the horizon; the order stays."""
    if care.horizon_ms == ALWAYS_MS:
        return batch
    return [
        _rejected(item) if isinstance(item, Learned) and _stamped_ms(item) < care.horizon_ms else item
        for item in batch
    ]


def _stamped_ms(item: Learned) -> int:
    """Give the instant that evidence is of. Registry and watching are kept for ever: they are no history."""
    said = item.evidence
    if isinstance(said, Event) or (isinstance(said, Observation) and said.kind == "check"):
        return said.at_ms
    return 1 << 62


def _rejected(item: Learned) -> Rejected:
    said = item.evidence
    if isinstance(said, Event):
        whole = json.dumps(to_json(said), separators=(",", ":")).encode()
    else:
        assert isinstance(said, Observation)
        whole = recording_line(said, said.at_ms)
    return Rejected(
        reason=REASON,
        detail="it is stamped before the horizon up to which this store was purged",
        head=whole[:_HEAD],
        length=len(whole),
        sha256=hashlib.sha256(whole).hexdigest(),
        position=item.position,
    )
