"""What redaction takes away and what it leaves: evidence stays evidence, and nothing personal is found in it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import random
import zlib
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ingest.decode import decode_message, recording_line, to_json
from ingest.known import Known
from ingest.mask import masked_text
from ingest.redact import DROP, HASH, IP, NAME, NUMBER, PRINCIPAL, Redaction, redaction, rules_of
from ingest.reduce import reduce_events
from ingest.refusal import HEAD_BYTES, rejected
from store.errors import UsageError
from store.model import Event, Kind, Learned, Observation, Rejected, Watch, bytes_of
from tests.builders import T0
from tests.ingest.test_decode_laws import JSON, NOW_MS, events
from tests.strategies import complete_history, history

KEY = b"a key of thirty-two characters.."
ADDRESS, ADDRESS6 = "203.0.113.77", "2001:db8:17::4711"
CERTIFICATE = "7d" * 32
PERSONAL = {"ipAddress": ADDRESS, "principalIdentifier": CERTIFICATE}
WAYS = [{IP: HASH, PRINCIPAL: HASH}, {IP: DROP, PRINCIPAL: DROP}, {IP: DROP}, {PRINCIPAL: HASH}]
OUT = [{IP: HASH, PRINCIPAL: HASH, NAME: HASH}, {IP: NUMBER, PRINCIPAL: NUMBER, NAME: NUMBER}]


def now() -> int:
    return NOW_MS


def decoded(value: Any) -> list[Learned | Rejected]:
    return decode_message(json.dumps(value).encode(), now=now)


def evidence(value: Any) -> Any:
    (item,) = decoded(value)
    assert isinstance(item, Learned), item
    return item.evidence


def test_what_is_said_of_something_unreadable_is_redacted_too() -> None:
    refused = rejected("gone-object", f"it is gone (s3://lake/{CERTIFICATE}/{ADDRESS}/1)", b"", 0)
    redacted = redaction({IP: DROP, PRINCIPAL: DROP}).record(refused)
    assert isinstance(redacted, Rejected)
    assert redacted.detail == "it is gone (s3://lake/redacted/redacted/1)"


def strings(value: Any) -> Iterator[str]:
    """All text in a JSON value, names of members included."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def both(key: bytes = KEY) -> Redaction:
    return redaction({IP: HASH, PRINCIPAL: HASH}, key=key)


def hashed_by_hand(text: str) -> str:
    return "hmac-" + hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()[:24]


def connected(**members: Any) -> dict[str, Any]:
    return {"clientId": "pump-17", "eventType": "connected", "timestamp": T0, "versionNumber": 0, **members}


# --- On the way in ------------------------------------------------------------------------------------------


def _is_kept(value: Any) -> bool:
    """Tell whether an event is taken with this as one of its members: text that no store holds is refused."""
    return not isinstance(value, str) or bytes_of(value) is not None


@st.composite
def personal_events(draw: st.DrawFn) -> dict[str, Any]:
    members = draw(events())
    bearers = ["ipAddress", "principalIdentifier", "source_ip", "Principal", "sourcePort", "note", "inner"]
    values = st.sampled_from([ADDRESS, ADDRESS6, CERTIFICATE, "", 4711, None, True]) | JSON.filter(_is_kept)
    for name in draw(st.sets(st.sampled_from(bearers))):
        members[name] = draw(values | st.dictionaries(st.sampled_from(bearers), values, max_size=3))
    return members


@settings(max_examples=150)
@given(personal_events(), st.sampled_from(WAYS))
def test_a_redacted_event_is_what_decoding_its_redacted_json_gives(
    members: dict[str, Any], rules: dict[str, str]
) -> None:
    redact = redaction(rules, key=KEY)
    event = evidence(members)
    redacted = redact.evidence(event)
    assert isinstance(redacted, Event)
    known = max(redacted.at_ms, 1)
    assert decode_message(recording_line(redacted, known), now=now) == [Learned(redacted, 0, known)]
    assert redact.evidence(redacted) == redacted
    assert redacted[:7] == event[:7]
    assert redacted.thing_name == event.thing_name
    for member, value in ((IP, ADDRESS), (IP, ADDRESS6), (PRINCIPAL, CERTIFICATE)):
        kept = {event.client_id, event.thing_name, event.session_id, event.reason}
        if member in rules and not any(value in (text or "") for text in kept):
            assert not any(value in text for text in strings(to_json(redacted))), (member, redacted)


def test_a_timeline_never_depends_on_it(rng: random.Random) -> None:
    for number in range(1_000):
        one = history(rng, f"client-{number}")
        told = [
            event._replace(
                ip=rng.choice((ADDRESS, ADDRESS6, None)),
                principal=rng.choice((CERTIFICATE, "c0ffee", None)),
                extra=rng.choice((event.extra, f'{{"sourceIp":"{ADDRESS}"}}')),
            )
            for event in one.events
        ]
        for rules in WAYS:
            redact = redaction(rules, key=KEY)
            redacted = [redact.evidence(event) for event in told]
            assert reduce_events(redacted) == reduce_events(told), one  # type: ignore[arg-type]


def test_a_plain_event_keeps_its_shape() -> None:
    event = evidence(connected(**PERSONAL))
    assert event == Event("pump-17", Kind.CONNECTED, T0, None, 0, None, None, CERTIFICATE, ADDRESS)
    hashed = both().evidence(event)
    assert hashed == event._replace(principal=hashed_by_hand(CERTIFICATE), ip=hashed_by_hand(ADDRESS))
    dropped = redaction({IP: DROP, PRINCIPAL: DROP}).evidence(event)
    assert dropped == event._replace(principal=None, ip=None)


def test_equal_texts_are_alike_under_one_key_and_strangers_under_another() -> None:
    first, again = (
        both().evidence(evidence(connected(**PERSONAL))),
        both().evidence(evidence(connected(**PERSONAL))),
    )
    other = both(b"another key, as long").evidence(evidence(connected(**PERSONAL)))
    assert isinstance(first, Event)
    assert isinstance(other, Event)
    assert first == again
    assert first.ip != other.ip
    assert first.principal != other.principal


@pytest.mark.parametrize(
    "members",
    [
        {"ip": ADDRESS},
        {"ip_address": ADDRESS},
        {"SourceIp": ADDRESS, "sourcePort": "203.0.113.77"},
        {"vpcEndpointId": ADDRESS},
        {"ipAddress": [ADDRESS, {"v6": ADDRESS6}]},
        {"principal": {"arn": CERTIFICATE}},
        {"certificate-id": CERTIFICATE},
        {"where": ADDRESS},  # renamed by the rule
        {"where": f"tcp://{ADDRESS}:8883"},
        {"deep": [[{"er": f"[{ADDRESS6}]:8883"}]]},
        {"who": f"arn:aws:iot:eu-west-1:123456789012:cert/{CERTIFICATE}"},
        {"deviceId": "p", "clientId": None, "ipAddress": ADDRESS},  # the whole original is kept
    ],
)
@pytest.mark.parametrize("rules", WAYS[:2])
def test_an_address_or_a_principal_is_found_wherever_it_stands(
    members: dict[str, Any], rules: dict[str, str]
) -> None:
    redacted = redaction(rules, key=KEY).evidence(evidence(connected(**members)))
    text = recording_line(redacted, T0).decode()
    assert not any(one in text for one in (ADDRESS, ADDRESS6, CERTIFICATE)), text


def test_what_makes_a_timeline_stays_though_it_looks_like_an_address() -> None:
    arn = f"arn:aws:iot:eu-west-1:123456789012:thing/{ADDRESS}"
    event = evidence(connected(clientId=ADDRESS, thingName=ADDRESS, extra=1, sessionIdentifier="::1"))
    assert both().evidence(event) == event
    by_topic = evidence({"topic": f"$aws/events/presence/connected/{ADDRESS}", "timestamp": T0})
    assert both().evidence(by_topic) == by_topic
    member = evidence({"eventType": "THING_GROUP_MEMBERSHIP_EVENT", "timestamp": T0, "thingArn": arn})
    assert member.subject == ADDRESS
    assert both().evidence(member) == member


def test_a_check_loses_its_socket_and_nothing_else() -> None:
    response = {"thingName": "pump-17", "connected": True, "timestamp": T0 / 1000, "disconnectReason": "NONE"}
    socket = {"sourceIp": ADDRESS, "sourcePort": 51234, "targetIp": "198.51.100.2", "targetPort": 8883}
    check = evidence({**response, **socket, "vpcEndpointId": "vpce-1"})
    assert isinstance(check, Observation)
    assert redaction({IP: DROP}).evidence(check) == evidence({**response, "targetPort": 8883})
    hashed = both().evidence(check)
    assert isinstance(hashed, Observation)
    assert hashed[:3] == check[:3]
    said = json.loads(hashed.body)["response"]
    assert {name for name, value in said.items() if str(value).startswith("hmac-")} == {
        *("sourceIp", "sourcePort", "targetIp", "vpcEndpointId")
    }


def test_a_record_that_hashes_would_make_too_large_loses_them() -> None:
    event = evidence(connected(ipAddress=["1.1.1.1"] * 90_000, note="stays"))
    redacted = both().evidence(event)
    assert redacted == evidence(connected(note="stays"))


def test_a_record_that_becomes_too_large_all_the_same_is_refused_and_not_lost() -> None:
    event = evidence(connected(hops=["::1"] * 140_000))
    refused = both().record(Learned(event, 7))
    assert isinstance(refused, Rejected)
    assert (refused.reason, refused.position) == ("too-large", 7)
    assert refused.length > 800_000
    assert b"::1" not in refused.head


def test_what_would_become_too_long_for_an_index_loses_its_addresses_instead() -> None:
    """A principal that is kept may be full of addresses, and a hash is longer than what it stands for."""
    only_ip = redaction({IP: HASH}, key=KEY)
    principal = " ".join(f"10.0.0.{n}" for n in range(100))
    event = evidence(connected(principalIdentifier=principal))
    assert only_ip.record(Learned(event, 7)) == Learned(
        event._replace(principal=" ".join(["redacted"] * 100)), 7
    )
    many = evidence(connected(principalIdentifier=" ".join(["::1"] * 250)))
    refused = only_ip.record(Learned(many, 7))
    assert isinstance(refused, Rejected)
    assert (refused.reason, refused.position) == ("too-long", 7)
    assert b"::1" not in refused.head
    watch = only_ip.record(Learned(Watch(principal, NOW_MS, NOW_MS), 7))
    assert isinstance(watch, Rejected)
    assert watch.reason == "too-long"


# --- What could not be read ---------------------------------------------------------------------------------

BROKEN = json.dumps(connected(**PERSONAL, note=f"at {ADDRESS6}", principal="AROAEXAMPLE:ann"))[:-1]
SECRETS = (ADDRESS.encode(), ADDRESS6.encode(), CERTIFICATE.encode(), b"AROAEXAMPLE")


def nested(text: str) -> list[bytes]:
    """The same text in the envelopes that may stand around it."""
    quoted = json.dumps({"body": json.dumps({"Message": text})})
    packed = base64.b64encode(text.encode()).decode()
    return [
        text.encode(),
        quoted.encode(),
        quoted[:-4].encode(),
        json.dumps({"kinesis": {"data": packed}})[:-1].encode(),
        "\n".join(packed[at : at + 76] for at in range(0, len(packed), 76)).encode(),
        json.dumps({"data": base64.b64encode(quoted.encode()).decode()})[:-2].encode(),
        json.dumps({"data": base64.b64encode(gzip.compress(text.encode())).decode()})[:-2].encode(),
        gzip.compress(text.encode()),
        json.dumps({"data": base64.b64encode(text.encode("utf-16")).decode()})[:-2].encode(),
        json.dumps({"data": base64.b64encode(f"\xf6{text}".encode("latin-1")).decode()})[:-2].encode(),
        text.encode("utf-16"),
        text.encode() + b"\xff",
    ]


def unpacked(head: bytes) -> bytes:
    """The head, and whatever a curious reader gets out of base64 in it."""
    found = head + head.replace(b"\0", b"")
    for run in head.replace(b"\n", b"").split(b'"'):
        usable = run.strip(b"=")[: len(run.strip(b"=")) // 4 * 4]
        try:
            inner = base64.b64decode(usable, validate=True)
            found += inner + inner.replace(b"\0", b"") + (unpacked(inner) if inner else b"")
            found += zlib.decompressobj(31).decompress(inner)
        except (ValueError, zlib.error):
            pass
    return found


@pytest.mark.parametrize("rules", WAYS[:2])
@pytest.mark.parametrize("number", range(12))
def test_a_head_in_quarantine_shows_nobody(number: int, rules: dict[str, str]) -> None:
    raw = nested(BROKEN)[number]
    before = rejected("not-json", "no JSON", raw, 7)
    after = redaction(rules, key=KEY).record(before)
    assert isinstance(after, Rejected)
    assert (after.length, after.sha256, after.position) == (before.length, before.sha256, 7)
    assert [secret for secret in SECRETS if secret in unpacked(after.head)] == []


@settings(max_examples=100)
@given(st.sampled_from(nested(BROKEN)[:6]), st.integers(1, 400), st.sampled_from(WAYS[:2]))
def test_nor_does_one_that_was_cut_short(raw: bytes, end: int, rules: dict[str, str]) -> None:
    whole = rejected("not-json", "no JSON", raw[:end] + b" " * HEAD_BYTES, 0)
    item = Rejected(**{name: getattr(whole, name) for name in whole.__slots__} | {"head": raw[:end]})
    after = redaction(rules, key=KEY).record(item)
    assert isinstance(after, Rejected)
    shown = unpacked(after.head)
    assert [secret for secret in SECRETS if secret in shown] == []
    assert not any(part in shown for part in (b"203.0.113", b"2001:db8"))


def test_a_head_without_such_things_stays_as_it_was() -> None:
    for head in (b'{"clientId": "' + b"x" * 100, b"\xef\xbb\xbf{]", "{größe".encode(), b"{'a': 1.2.3}", b""):
        item = rejected("not-json", "no JSON", head, 0)
        assert both().record(item) == item


# --- Text ---------------------------------------------------------------------------------------------------


@given(
    st.ip_addresses(),
    st.sampled_from(["", " ", "/", "://", "[", "(", "=", "x=", "from ", "ip:", "€"]),
    st.sampled_from(["", " ", "/", "]:8883", ")", ",", ". ", ": refused", "%eth0", "€"]),
)
def test_an_address_is_found_in_any_text(address: IPv4Address | IPv6Address, before: str, after: str) -> None:
    assume(not address.is_unspecified)
    for text in (str(address), address.exploded):
        assert masked_text(f"{before}{text}{after}", {IP: lambda found: "gone"}) == f"{before}gone{after}"


@pytest.mark.parametrize(
    "text",
    ["12:34:56", "1.2.3", "1.2.3.4.5", "999.1.1.1", "a:b", "std::string", "00:1b:44:11:3a:b7", "::", "7d7d"],
)
def test_what_is_no_address_stays(text: str) -> None:
    assert masked_text(text, {IP: lambda found: "gone", PRINCIPAL: lambda found: "gone"}) == text


NAMES = st.lists(st.text("ab-/7", min_size=1, max_size=7), min_size=1, max_size=6)


@settings(max_examples=150)
@given(NAMES, st.text("ab-/7", max_size=30))
def test_known_names_are_found_as_a_slow_search_finds_them(names: list[str], text: str) -> None:
    found = Known(names).replaced(text, lambda name: f"<{name}>")
    assert found.replace("<", "").replace(">", "") == text
    left = "".join(piece.rpartition(">")[2] + "|" for piece in found.split("<"))
    assert not any(name in left for name in names if len(name) >= 4)


def test_a_short_name_is_a_word_and_the_longest_name_wins() -> None:
    known = Known(["a", "pump", "pump-17", "17"])
    assert known.replaced("a/pump-17/alpha/17/pump-171 b17", str.upper) == "A/PUMP-17/alpha/17/PUMP-171 b17"
    assert known.replaced("pumps pump", lambda name: "x", words=True) == "pumps x"


# --- On the way out -----------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(personal_events(), st.sampled_from(OUT))
def test_a_renamed_event_is_what_decoding_its_renamed_json_gives(
    members: dict[str, Any], rules: dict[str, str]
) -> None:
    event = evidence(members)
    names = {name for name in (event.client_id, event.thing_name) if name}
    redact = redaction(rules, key=KEY, known={NAME: names})
    renamed = redact.evidence(event)
    assert isinstance(renamed, Event)
    assert decode_message(recording_line(renamed, renamed.at_ms), now=now) == [
        Learned(renamed, 0, renamed.at_ms)
    ]
    assert (renamed.kind, renamed.at_ms, renamed.version, renamed.reason) == (
        *(event.kind, event.at_ms, event.version, event.reason),
    )
    if event.thing_name:
        assert (renamed.thing_name == renamed.client_id) == (event.thing_name == event.client_id)


def test_a_renamed_timeline_is_the_same(rng: random.Random) -> None:
    """Also where principals that are dropped stand in session ids, which must stay apart."""
    for number in range(200):
        one = complete_history(rng, f"client-{number}")
        ids = {event.session_id for event in one.events if event.session_id}
        known = {NAME: [one.client_id], PRINCIPAL: [text for text in ids if rng.random() < 0.5]}
        redact = redaction({IP: DROP, PRINCIPAL: DROP, NAME: NUMBER}, known=known)
        renamed = [redact.evidence(event) for event in one.events]
        assert {event.client_id for event in renamed if isinstance(event, Event)} == {"thing-1"}
        assert not any(text in str(renamed) for text in known[PRINCIPAL])
        assert reduce_events(renamed) == reduce_events(one.events), one  # type: ignore[arg-type]


def test_a_name_is_alike_wherever_it_stands() -> None:
    redact = redaction({NAME: NUMBER}, known={NAME: ["pump-17", "pump-18", "plant/7/valve"]})
    said = [
        connected(
            sessionIdentifier="pump-17-1", topics=["site/pump-17/state", "pump-171", "$share/g/pump-18"]
        ),
        connected(
            thingName="pump-18", principalIdentifier="AROA:pump-17", attributes={"pump-18": "of pump-17"}
        ),
        {"topic": "$aws/events/presence/connected/plant/7/valve", "timestamp": T0},
    ]
    arn = "arn:aws:iot:eu-west-1:123456789012:thing/pump-18"
    registry = {"eventType": "THING_EVENT", "timestamp": T0, "thingArn": arn, "accountId": "123456789012"}
    events_out = [to_json(redact.evidence(evidence(one))) for one in said]
    assert events_out == [
        connected(
            clientId="thing-1",
            sessionIdentifier="thing-2",
            topics=["site/thing-1/state", "thing-11", "$share/g/thing-3"],
        ),
        connected(
            clientId="thing-1",
            thingName="thing-3",
            principalIdentifier="AROA:thing-1",
            attributes={"thing-3": "of thing-1"},
        ),
        {"topic": "$aws/events/presence/connected/thing-4", "timestamp": T0},
    ]
    event = redact.evidence(evidence(registry))
    assert isinstance(event, Observation)
    assert event.subject == "thing-3"
    assert json.loads(event.body) == {
        **registry,
        "thingArn": "arn:aws:iot:eu-west-1:000000000000:thing/thing-3",
        "accountId": "000000000000",
    }
    watch = redact.evidence(Watch("mqtt of pump-17", T0, T0 + 1))
    assert watch == Watch("thing-5", T0, T0 + 1)


def test_a_thing_that_is_called_as_a_number_would_be_keeps_that_to_itself() -> None:
    redact = redaction({NAME: NUMBER}, known={NAME: ["thing-1", "thingx-9"]})
    event = redact.evidence(evidence(connected(clientId="thing-1")))
    assert isinstance(event, Event)
    assert event.client_id == "thingxx-1"


def test_members_keep_their_names_though_a_thing_is_called_so() -> None:
    names = ["response", "connected", "api", "timestamp", "thingName", "connectivity"]
    redact = redaction({NAME: NUMBER}, known={NAME: names})
    check = evidence({"thingName": "response", "connectivity": {"connected": True, "timestamp": T0}})
    renamed = redact.evidence(check)
    assert isinstance(renamed, Observation)
    assert json.loads(renamed.body)["response"] == {
        "thingName": "thing-1",
        "connectivity": {"connected": True, "timestamp": T0},
    }


# --- What is asked ------------------------------------------------------------------------------------------


def test_rules_are_read_in_every_way_in_which_they_may_be_written() -> None:
    members, ways = (IP, PRINCIPAL), (HASH, DROP)
    wanted = {IP: DROP, PRINCIPAL: HASH}
    for said in (["ip=drop", "principal=hash"], ["ip=drop,principal=hash"], ["principal=hash ip=drop"]):
        assert rules_of(said, members, ways) == wanted
    assert rules_of(["hash"], members, ways) == {IP: HASH, PRINCIPAL: HASH}
    assert rules_of([], members, ways) == {}


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (["ip"], "--redact ip is not understood"),
        (["ip=burn"], "--redact ip=burn is not understood"),
        (["=drop"], "--redact =drop is not understood"),
        (["name=hash"], "MEMBER one of ip, principal"),
        (["ip=number"], "WAY one of hash, drop"),
        (["ip=drop", "hash"], "two ways for ip"),
        ([""], "is empty"),
    ],
)
def test_rules_that_make_no_sense_are_refused(said: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        rules_of(said, (IP, PRINCIPAL), (HASH, DROP))


def test_names_cannot_be_dropped() -> None:
    with pytest.raises(UsageError, match="name=number"):
        rules_of(["drop"], (IP, PRINCIPAL, NAME), (NUMBER, HASH, DROP))


@pytest.mark.parametrize(("key", "complaint"), [(None, "without a key"), (b"short", "make a longer one")])
def test_a_hash_needs_a_key_that_cannot_be_guessed(key: bytes | None, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        redaction({IP: HASH}, key=key)
