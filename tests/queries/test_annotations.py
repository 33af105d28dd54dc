"""What annotations change of a report, as an operator would check it by hand; and that time adds up with them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from queries.policies import read_policy
from queries.uptime import (
    Account,
    Counted,
    Policy,
    Reckoned,
    Span,
    Stretch,
    UnknownAs,
    account,
    reckon,
    split,
)
from store.annotations import Annotation, Annotations, Applied, Note, Scope, touching
from store.certainty import Seen
from store.errors import UsageError
from store.model import HOUR_MS, MINUTE_MS, Learned, State
from store.registry import Description, Lifetime, Registry
from tests.builders import connect, disconnect
from tests.contract.test_commands import Run, on_any, run
from tests.contract.test_uptime import MIDNIGHT_MS, registered, write
from tests.queries.test_uptime import ABSENT, DOWN, UNKNOWN, UP, drawn, minutes, sums_of, told

__all__ = ["on_any", "run"]  # fixtures

CONTRACT = Policy(without_maintenance=True, without_false_alarms=True)


def annotation(kind: Note, span: Span, *, number: int = 1, **more: Any) -> Annotation:
    made = Annotation(number, 0, False, kind, Scope.THING, "pump-17", *span, None, None, None, 0, None)
    return made._replace(**more)


def said(*parts: tuple[Note, Span]) -> list[Applied]:
    return [
        Applied(*span, annotation(kind, span, number=number)) for number, (kind, span) in enumerate(parts)
    ]


class Case(NamedTuple):
    """What happened and what was said of it, in minutes; up, down, unknown, excluded, absent, outages, takeovers."""

    name: str
    stretches: list[Stretch]
    said: list[Applied]
    policy: Policy
    sums: tuple[int, ...]


OUTAGE = ((UP, 10), (DOWN, 20), (UP, 10))
CASES = [
    Case(
        "plain counts what was, whatever is said of it",
        told(*OUTAGE),
        said((Note.MAINTENANCE, minutes(0, 40)), (Note.FALSE_ALARM, minutes(0, 40))),
        Policy(),
        (20, 20, 0, 0, 0, 1, 0),
    ),
    Case(
        "maintenance leaves out all of its time, connected or not",
        told(*OUTAGE),
        said((Note.MAINTENANCE, minutes(5, 25))),
        CONTRACT,
        (15, 5, 0, 20, 0, 1, 0),
    ),
    Case(
        "an outage within maintenance is none",
        told(*OUTAGE),
        said((Note.MAINTENANCE, minutes(9, 31))),
        CONTRACT,
        (18, 0, 0, 22, 0, 0, 0),
    ),
    Case(
        "maintenance that was announced twice counts once",
        told(*OUTAGE),
        said((Note.MAINTENANCE, minutes(9, 25)), (Note.MAINTENANCE, minutes(20, 31))),
        CONTRACT,
        (18, 0, 0, 22, 0, 0, 0),
    ),
    Case(
        "a false alarm was connected: no outage, no takeover",
        told(*OUTAGE),
        said((Note.FALSE_ALARM, minutes(0, 40))),
        CONTRACT,
        (40, 0, 0, 0, 0, 0, 0),
    ),
    Case(
        "of a false alarm that was given too narrow the rest is down",
        told(*OUTAGE),
        said((Note.FALSE_ALARM, minutes(12, 28))),
        CONTRACT,
        (36, 4, 0, 0, 0, 2, 0),
    ),
    Case(
        "a false alarm makes nothing known of what is unknown, and registers nothing",
        told((UNKNOWN, 10), (ABSENT, 10), (DOWN, 10)),
        said((Note.FALSE_ALARM, minutes(0, 30))),
        CONTRACT,
        (10, 0, 10, 0, 10, 0, 0),
    ),
    Case(
        "what is not registered is not maintained",
        told((ABSENT, 20), (UP, 20)),
        said((Note.MAINTENANCE, minutes(10, 30))),
        CONTRACT,
        (10, 0, 0, 10, 20, 0, 0),
    ),
    Case(
        "what a false alarm leaves may be short enough for grace",
        told((UP, 10), (DOWN, 8), (UP, 10)),
        said((Note.FALSE_ALARM, minutes(10, 14))),
        Policy(without_false_alarms=True, grace_ms=5 * MINUTE_MS),
        (28, 0, 0, 0, 0, 0, 0),
    ),
    Case(
        "a ticket changes nothing",
        told(*OUTAGE),
        said((Note.TICKET, minutes(0, 40))),
        CONTRACT,
        (20, 20, 0, 0, 0, 1, 0),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_reported(case: Case) -> None:
    window = case.stretches[0].from_ms, case.stretches[-1].to_ms
    states = {Counted.CONNECTED: State.CONNECTED, Counted.DISCONNECTED: State.DISCONNECTED}
    stretches = [
        each._replace(
            seen=Seen(each.from_ms, 0, 0, None, states[each.counted], None, None, None, None, "", None)
        )
        if each.counted in states
        else each
        for each in case.stretches
    ]
    sums = account(reckon(stretches, case.policy, window, case.said))
    found = (
        sums.connected_ms,
        sums.disconnected_ms,
        sums.unknown_ms,
        sums.excluded_ms,
        sums.not_registered_ms,
    )
    assert (*(each // MINUTE_MS for each in found), sums.outages, sums.takeovers) == case.sums
    assert sums.window_ms == window[1] - window[0]


def test_a_false_alarm_is_not_observed_to_have_been_connected() -> None:
    sums = account(reckon(told(*OUTAGE), CONTRACT, minutes(0, 40), said((Note.FALSE_ALARM, minutes(0, 40)))))
    assert (sums.availability_low, sums.availability, sums.availability_high) == (0.5, 1, 1)


def test_time_adds_up_however_it_is_cut(rng: random.Random) -> None:
    """Law 9, with annotations of every kind wherever they fall."""
    refuted = 0
    for _ in range(200):
        stretches = drawn(rng, 2_000)
        policy = Policy(
            grace_ms=rng.choice((0, 1, 3, 40)) * MINUTE_MS,
            coalesce_ms=rng.choice((0, 1, 3, 40)) * MINUTE_MS,
            unknown=rng.choice(list(UnknownAs)),
            excluded=[minutes(at, at + rng.randrange(1, 60)) for at in range(0, 2_000, 700)],
            without_maintenance=rng.random() < 0.7,
            without_false_alarms=rng.random() < 0.7,
        )
        spans = [(at, at + rng.randrange(1, 90)) for at in rng.sample(range(2_000), rng.randrange(12))]
        annotated = said(*((rng.choice(list(Note)), minutes(*span)) for span in spans))
        margin = policy.reach_ms
        low, high = margin + rng.randrange(1_000 * MINUTE_MS - margin), 1_900 * MINUTE_MS - margin
        whole = reckon(stretches, policy, (low, high), annotated)
        assert [each.from_ms for each in whole.stretches[1:]] == [each.to_ms for each in whole.stretches[:-1]]
        sums = account(whole)
        assert sums.window_ms == high - low
        refuted += sums.connected_ms > account(reckon(stretches, policy, (low, high))).connected_ms
        cuts = sorted({low, high, *(rng.randrange(low, high) for _ in range(rng.randrange(6)))})
        for parts in (
            [within(stretches, policy, window, annotated) for window in pairwise(cuts)],
            list(split(whole, cuts[1:-1])),
        ):
            added = Account()
            for part in parts:
                added.add(account(part))
            assert sums_of(added) == sums_of(sums)
    assert refuted > 20


def within(
    stretches: Sequence[Stretch], policy: Policy, window: Span, annotated: Sequence[Applied]
) -> Reckoned:
    """Count a window of what reaches no further beyond it than a policy looks; annotations too."""
    low, high = window[0] - policy.reach_ms, window[1] + policy.reach_ms
    near = [
        each._replace(from_ms=max(each.from_ms, low), to_ms=min(each.to_ms, high))
        for each in stretches
        if each.from_ms < high and each.to_ms > low
    ]
    told_of = [each for each in annotated if each.from_ms < high and each.to_ms > low]
    return reckon(near, policy, window, told_of)


# --- Of whom ------------------------------------------------------------------------------------------------


def test_a_group_s_annotation_speaks_of_a_thing_while_it_is_in_it() -> None:
    north, south = Description(groups=("north",)), Description(groups=("south",))
    registry = Registry(
        (
            Lifetime("a", None, 100, 300, 300, ((100, north), (200, south))),
            Lifetime("b", None, 400, 500, None, ((400, south), (450, north))),
        ),
        None,
    )
    group = annotation(Note.MAINTENANCE, (50, 460), scope=Scope.GROUP, subject="north")
    known = Annotations([group, annotation(Note.TICKET, (0, 9), number=2, subject="pump-18")])
    assert known.of_groups
    assert [each[:2] for each in known.of("pump-17", registry)] == [(100, 200), (450, 460)]
    assert known.of("pump-17", None) == []
    assert [each.annotation.number for each in known.of("pump-18", None)] == [2]
    everywhere = Annotations([group._replace(scope=Scope.ALL, subject=None)])
    assert [each[:2] for each in everywhere.of("pump-17", None)] == [(50, 460)]


@pytest.mark.parametrize(("window", "found"), [((0, 5), 0), ((0, 6), 1), ((8, 9), 1), ((9, 12), 0)])
def test_touching_is_half_open(window: Span, found: int) -> None:
    assert len(touching(said((Note.TICKET, (5, 9))), *window)) == found


# --- Of a store ---------------------------------------------------------------------------------------------

DAY = ("--from", str(MIDNIGHT_MS), "--to", str(MIDNIGHT_MS + 10 * HOUR_MS))
CONTRACT_SAID = ("--policy", "contract: maintenance=exclude false-alarms=connected")


def fill(url: str) -> None:
    """Two pumps, down from two to three; the first leaves the group at half past two."""
    events = []
    for client_id in ("pump-1", "pump-2"):
        events += [
            connect(MIDNIGHT_MS, session="s", version=0, client_id=client_id),
            disconnect(MIDNIGHT_MS + 2 * HOUR_MS, session="s", version=0, client_id=client_id),
            connect(MIDNIGHT_MS + 3 * HOUR_MS, session="t", version=1, client_id=client_id),
        ]
    group = {"operation": "ADDED", "groupArn": "arn:aws:iot:eu-west-1:1:thinggroup/north"}
    member = {"eventType": "THING_GROUP_MEMBERSHIP_EVENT", **group}
    left = {**member, "operation": "REMOVED"}
    half_past = MIDNIGHT_MS + 2 * HOUR_MS + 30 * MINUTE_MS
    write(
        url,
        *(Learned(event, 0) for event in events),
        registered("pump-1", MIDNIGHT_MS - 2),
        registered("pump-1", MIDNIGHT_MS - 1, **member),
        registered("pump-1", half_past, **left),
    )


def test_maintenance_of_a_group_counts_while_a_thing_is_in_it(run: Run, store_url: str) -> None:
    fill(store_url)
    assert run("annotate", "--group", "north", *DAY, "--maintenance").err == ""
    shown = run("uptime", *DAY, *CONTRACT_SAID, "--json")
    assert shown.err == ""
    _, first, second, fleet = shown.objects
    half_ms = HOUR_MS // 2
    assert (first["excludedMs"], first["disconnectedMs"]) == (5 * half_ms, half_ms)
    assert (second["excludedMs"], second["disconnectedMs"]) == (0, HOUR_MS)
    parts = ("connectedMs", "disconnectedMs", "unknownMs", "excludedMs", "notRegisteredMs")
    assert sum(fleet[part] for part in parts) == 20 * HOUR_MS
    plain = run("uptime", *DAY, "--json")
    assert "maintenance=exclude" in plain.err
    assert [row["excludedMs"] for row in plain.objects[1:]] == [0, 0, 0]


def test_a_report_of_then_does_not_see_what_is_said_now(run: Run, store_url: str) -> None:
    fill(store_url)
    before = run("uptime", *DAY, *CONTRACT_SAID, "--json")
    assert run("annotate", "pump-1", *DAY, "--false-alarm").code == 0
    after = run("uptime", *DAY, *CONTRACT_SAID, "--json")
    assert [row["outages"] for row in before.objects[1:]] == [1, 1, 2]
    assert [row["outages"] for row in after.objects[1:]] == [0, 1, 1]
    assert run("annotate", "withdraw", "1").code == 0
    known_at = before.objects[0]["knownAt"], after.objects[0]["knownAt"]
    for moment, shown in zip(known_at, (before, after), strict=True):
        assert run("uptime", *DAY, *CONTRACT_SAID, "--known-at", moment, "--json").out == shown.out
    now = run("uptime", *DAY, *CONTRACT_SAID, "--json").objects
    assert now[1:] == before.objects[1:]


def test_tickets_stand_beside_outages_and_in_explain(run: Run, store_url: str) -> None:
    fill(store_url)
    spell = ("--from", str(MIDNIGHT_MS + 2 * HOUR_MS), "--to", str(MIDNIGHT_MS + 3 * HOUR_MS))
    assert run("annotate", "pump-1", *spell, "--ticket", "INC-4711", "--note", "pump\x1b[2J").code == 0
    receipt, first, second = run("outages", *DAY, "--json").objects
    assert receipt["report"] == "outages"
    assert [(each["ticket"], each["kind"]) for each in first["annotations"]] == [("INC-4711", "ticket")]
    assert second["annotations"] == []
    assert "INC-4711" in run("outages", *DAY, "--csv").out
    words = run("outages", *DAY).out
    assert words.splitlines()[2].endswith("ticket INC-4711")
    why = run("explain", "pump-1", str(MIDNIGHT_MS + 2 * HOUR_MS), "--json")
    assert [each["ticket"] for each in json.loads(why.out)["annotations"]] == ["INC-4711"]
    assert (
        json.loads(run("explain", "pump-1", str(MIDNIGHT_MS + 3 * HOUR_MS), "--json").out)["annotations"]
        == []
    )
    told_of = run("explain", "pump-1", str(MIDNIGHT_MS + 2 * HOUR_MS)).out
    assert "ticket INC-4711" in told_of
    assert "\x1b" not in told_of


def test_a_setting_that_is_none_is_refused() -> None:
    for word in ("maintenance=maybe", "false-alarms=exclude"):
        with pytest.raises(UsageError, match="is none of"):
            read_policy(f"x: {word}", None, (0, 1))
