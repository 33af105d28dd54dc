"""Personal data taken out of evidence: addresses and principals on its way in, names too on its way out.

Owns what stands in place of what (`--redact`), in evidence and in the heads of what cannot be read. Pure. It
must never change what a timeline is made of: client ids, stamps, sessions, versions and reasons stay, or (names,
of an export) are renamed alike everywhere. What it gives is evidence as decoding would give it from the redacted
JSON, so that redaction comes before the digest: redelivered with the same settings, it is the same evidence.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ingest.encode import to_json
from ingest.known import Known
from ingest.mask import IP, PRINCIPAL, REDACTED, Substitute, bearer_of, masked_head, masked_text
from ingest.members import CLIENT_NAMES, THING_ARN, TOPIC, TOPIC_NAMES, body_of, read_event, storable
from ingest.refusal import Unreadable, rejected
from ingest.stamps import END_MS
from store.errors import UsageError
from store.model import Event, Evidence, Learned, Observation, Rejected, Watch, new_tuple

__all__ = ["DROP", "HASH", "IP", "NAME", "NUMBER", "PRINCIPAL", "Redaction", "redaction", "rules_of"]

NAME = "name"
HASH, NUMBER, DROP = "hash", "number", "drop"

KEY_BYTES = 16  # of a key, at least: what is shorter can be guessed
_DIGITS = 24  # of a hash; 96 bits: among 100 million texts, two are alike once in 16 trillion stores
_HASHED = re.compile(rf"hmac-[0-9a-f]{{{_DIGITS}}}")
_MOST_REMEMBERED = 200_000
_ACCOUNT = re.compile(r"(?:^|(?<=[:/]))[0-9]{12}(?=[:/]|$)")  # also in ARNs, and in the URLs of queues
_NO_ACCOUNT = "0" * 12

# Members whose values decide what evidence says, and are no text to search in.
_TOLD = frozenset(
    {"api", "askedAt", "connected", "connectedSince", "connectFailureReason", "disconnectReason"}
    | {"disconnectedSince", "eventType", "event_type", "operation", "timestamp", "versionNumber"}
)
# Members whose names are never a thing's, though one may be called so.
_OURS = _TOLD | {"attributes", "connectivity", "error", "response", "sessionIdentifier", "things", "topics"}
_NAMES = frozenset((*CLIENT_NAMES, "thingName"))


class Hashed:
    """Keyed hashes: equal texts are alike, and nobody without the key can try which text it was."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._seen: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """Give HMAC-SHA256 of a text, as a legal thing name; what is one already stays."""
        found = self._seen.get(text)
        if found is None:
            if len(self._seen) >= _MOST_REMEMBERED:
                self._seen.clear()
            digest = hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), "sha256").hex()
            found = text if _HASHED.fullmatch(text) else f"hmac-{digest[:_DIGITS]}"
            self._seen[text] = found
        return found


class Numbered:
    """Numbers in the order in which texts are met: alike within one export, and no key to keep."""

    def __init__(self, prefix: str, taken: Collection[str]) -> None:
        while any(name.startswith(f"{prefix}-") for name in taken):
            prefix += "x"  # or one thing would bear another's name
        self._prefix = prefix
        self._seen: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        return self._seen.setdefault(text, f"{self._prefix}-{len(self._seen) + 1}")


def rules_of(said: Sequence[str], members: Sequence[str], ways: Sequence[str]) -> dict[str, str]:
    """Read `--redact` as the way in which each of `members` is redacted; a way alone stands for all of them.

    Several may stand in one text, between commas or spaces. Raises UsageError.
    """
    rules: dict[str, str] = {}
    for each in (part for text in said for part in text.replace(",", " ").split()):
        member, equals, way = each.partition("=")
        way = way if equals else member
        for one in [member] if equals else members:
            if one not in members or way not in ways:
                raise UsageError(
                    f"--redact {each} is not understood; give MEMBER=WAY or WAY, with MEMBER one of"
                    f" {', '.join(members)} and WAY one of {', '.join(ways)}."
                )
            if one == NAME and way == DROP:
                raise UsageError(
                    "Names cannot be dropped, or nothing would be left; give --redact name=number."
                )
            if rules.setdefault(one, way) != way:
                raise UsageError(f"--redact says two ways for {one}; give one.")
    if said and not rules:
        raise UsageError(
            "--redact is empty, and nothing would be redacted; say what is to be, or leave it out."
        )
    return rules


def redaction(
    rules: Mapping[str, str],
    *,
    key: bytes | None = None,
    known: Mapping[str, Collection[str]] | None = None,
) -> Redaction:
    """Make a redaction of HASH, NUMBER or DROP by IP, PRINCIPAL and NAME; what is not among them stays.

    `known` are the texts of each that are to be found inside other text as well. Raises UsageError for HASH
    without a key, and for a key that can be guessed.
    """
    known = known or {}
    if HASH in rules.values() and key is None:
        raise UsageError(
            "A hash without a key is undone by trying all addresses. Give a key of your own in"
            " THINGLINE_REDACT_KEY, or the file that holds it as --redact-key-file."
        )
    if key is not None and len(key) < KEY_BYTES:
        raise UsageError(f"The key for --redact is shorter than {KEY_BYTES} characters; make a longer one.")
    hashed = Hashed(key or b"")  # one for all: a text is alike wherever it stands

    def way_of(member: str, way: str) -> Substitute:
        if way == NUMBER:
            return Numbered("thing" if member == NAME else member, known.get(member, ()))
        return hashed if way == HASH else _dropped

    return Redaction({member: way_of(member, way) for member, way in rules.items()}, known)


class Redaction:
    """What is done to each piece of evidence, or to what was refused, on its way. One thread at a time."""

    def __init__(self, ways: Mapping[str, Substitute], known: Mapping[str, Collection[str]]) -> None:
        self._ways = ways
        self._all_known = known
        self._rename = ways.get(NAME)
        self._member_of = {text: member for member in ways for text in known.get(member, ())}
        self._known = Known(self._member_of)
        # What else is personal goes from addresses and principals that stay, too.
        stay = lru_cache(_MOST_REMEMBERED)(self._rest)
        self._ip, self._principal = ways.get(IP, stay), ways.get(PRINCIPAL, stay)

    def record(self, record: Learned | Rejected) -> Learned | Rejected:
        """Redact evidence, or the head of what is none: its length and SHA-256 stay those of what arrived.

        Evidence that becomes too large is refused.
        """
        if type(record) is Learned:
            try:
                return new_tuple(
                    Learned, (self.evidence(record.evidence), record.position, record.known_at_ms)
                )
            except Unreadable as error:
                whole = json.dumps(to_json(record.evidence), separators=(",", ":")).encode("ascii")
                record = rejected(error.reason, error.detail, whole, record.position)
        assert isinstance(record, Rejected)
        cut = record.length > len(record.head)
        head = masked_head(record.head, self._ways, cut=cut)
        return replace(record, head=head, detail=self.text(record.detail))  # it may name an object of S3

    def evidence(self, evidence: Evidence) -> Evidence:
        """Redact one piece of evidence. Raises Unreadable where that makes it larger than a record may be."""
        try:
            if type(evidence) is Event and evidence.extra is None:
                return self._plain(evidence)
            if isinstance(evidence, Watch):
                return evidence._replace(source=storable(self.source(evidence.source), "source"))
            return self._redacted(evidence)
        except Unreadable:  # many hashes in one record, each longer than what it stands for
            if isinstance(evidence, Watch):
                raise
            ways = {member: way if member == NAME else _dropped for member, way in self._ways.items()}
            return Redaction(ways, self._all_known)._redacted(evidence)

    def source(self, name: str) -> str:
        """Redact the name of a source, a path or a URL; where names go, the whole of it."""
        return self.text(name) if self._rename is None else self._renamed(name)

    def text(self, text: str) -> str:
        """Redact text of any kind."""
        text = self._without_known(text)
        if self._rename is not None:
            text = _ACCOUNT.sub(_NO_ACCOUNT, text)
        return masked_text(text, self._ways)

    def _rest(self, text: str) -> str:
        return storable(self.text(text), "ipAddress or principalIdentifier")

    def _plain(self, event: Event) -> Event:
        client_id, kind, at_ms, session_id, version, reason, initiated, principal, ip, thing, _ = event
        if self._rename is not None:
            client_id = self._renamed(client_id)
            session_id = None if session_id is None else self._session(session_id)
            thing = None if thing is None else self._renamed(thing)
        principal = None if principal is None else self._principal(principal)
        ip = None if ip is None else self._ip(ip)
        return new_tuple(
            Event,
            (client_id, kind, at_ms, session_id, version, reason, initiated, principal, ip, thing, None),
        )

    def _redacted(self, evidence: Event | Observation) -> Event | Observation:
        if isinstance(evidence, Event):
            return read_event(self._object(to_json(evidence)), evidence.kind, END_MS)
        subject = None if evidence.subject is None else self._renamed(evidence.subject)
        return Observation(
            evidence.kind, subject, evidence.at_ms, body_of(self._object(json.loads(evidence.body)))
        )

    # --- JSON ---------------------------------------------------------------------------------------------

    def _object(self, members: dict[str, Any]) -> dict[str, Any]:
        redacted: dict[str, Any] = {}
        for name, value in members.items():
            bearer = bearer_of(name)
            if bearer is not None and bearer in self._ways:
                way = self._ways[bearer]
                if way is not _dropped:
                    redacted[name] = _each(value, way)
            elif name in _NAMES:
                redacted[name] = self._name(value)
            elif name in _TOLD and not isinstance(value, (dict, list)):
                redacted[name] = value
            elif name == "sessionIdentifier" and isinstance(value, str):
                redacted[name] = self._session(value)
            elif name in TOPIC_NAMES and isinstance(value, str) and (match := TOPIC.fullmatch(value)):
                redacted[name] = value[: match.start(3)] + self._renamed(match[3])
            elif self._rename is None or name in _OURS or bearer is not None:
                redacted[name] = self._value(value)
            else:
                redacted[self._known.replaced(name, self._substituted, words=True)] = self._value(value)
        return redacted

    def _value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._object(value)
        if isinstance(value, list):
            return [self._value(each) for each in value]
        if not isinstance(value, str):
            return value
        if match := THING_ARN.fullmatch(value):
            before = value[: match.start(1)]
            before = before if self._rename is None else _ACCOUNT.sub(_NO_ACCOUNT, before)
            return before + self._renamed(match[1])
        return self.text(value)

    def _name(self, value: Any) -> Any:
        if isinstance(value, str) and value:
            return self._renamed(value)
        if self._rename is not None and isinstance(value, (int, float)) and not isinstance(value, bool):
            return 0  # nobody reads a number as a name, but a name it may be
        return self._value(value)

    def _session(self, session_id: str) -> str:
        """Rename a session id in which something known stands; as a whole, so that no two become one."""
        return session_id if self._without_known(session_id) == session_id else self._renamed(session_id)

    def _renamed(self, name: str) -> str:
        return name if self._rename is None else self._rename(name) or REDACTED

    def _without_known(self, text: str) -> str:
        return self._known.replaced(text, self._substituted)

    def _substituted(self, text: str) -> str:
        return self._ways[self._member_of[text]](text) or REDACTED


def _each(value: Any, way: Substitute) -> Any:
    """Put something else in place of every text and number in a value; null and the empty text say nothing."""
    if isinstance(value, dict):
        return {name: _each(inner, way) for name, inner in value.items()}
    if isinstance(value, list):
        return [_each(inner, way) for inner in value]
    if value is None or value == "" or isinstance(value, bool):
        return value
    return way(str(value))


def _dropped(text: str) -> None:
    return None
