"""The sessions of a thing in a window; and windows that are refused, with nothing on stdout."""

from __future__ import annotations

from pathlib import Path

import pytest

import thingline
from store.errors import IndexNotReady, UsageError
from store.model import MINUTE_MS
from tests.builders import CLIENT, T0, connect, disconnect
from tests.contract.test_commands import AFTER, AT, Done, Run, event_json, ndjson, on_any, run, sampled

__all__ = ["on_any", "run", "sampled"]  # fixtures

HORIZON = "2026-11-01T03:00:00.000Z"
JUST_BEFORE = "2026-11-01T02:59:59.999Z"

# Minutes after T0: each session's connect, its disconnect.
LIVES: dict[str, tuple[int | None, int | None]] = {
    "whole": (0, 10),
    "next": (10, 20),
    "end-alone": (None, 30),
    "beginning-alone": (40, None),
    "last": (50, 60),
}


@pytest.fixture
def lived(run: Run, tmp_path: Path) -> Run:
    """Type commands about a client of a few sessions, of which two were told by half."""
    events = []
    for version, (session, (begins, ends)) in enumerate(LIVES.items()):
        if begins is not None:
            events.append(event_json(connect(T0 + begins * MINUTE_MS, session=session, version=version)))
        if ends is not None:
            events.append(event_json(disconnect(T0 + ends * MINUTE_MS, session=session, version=version)))
    assert run("ingest", ndjson(tmp_path / "events.ndjson", events)).code == 0
    return run


@pytest.mark.parametrize(
    ("from_ms", "to_ms", "listed"),
    [
        (None, None, ["whole", "next", "end-alone", "beginning-alone", "last"]),
        (5, 10, ["whole"]),  # one that begins at the end is none of it
        (5, 11, ["whole", "next"]),
        (10, 11, ["whole", "next"]),  # a disconnect at the beginning lies in it
        (11, 12, ["next"]),
        (21, 30, []),
        (21, 31, ["end-alone"]),
        (30, 31, ["end-alone"]),
        (31, 40, []),
        (45, 46, ["beginning-alone"]),  # without an end it is open
        (61, None, ["beginning-alone"]),
        (None, 10, ["whole"]),
        (None, 0, []),
    ],
)
def test_a_window_has_the_sessions_that_any_of_its_time_lies_in(
    lived: Run, store_url: str, from_ms: int | None, to_ms: int | None, listed: list[str]
) -> None:
    bounds = {
        name: T0 + minutes * MINUTE_MS
        for name, minutes in (("from", from_ms), ("to", to_ms))
        if minutes is not None
    }
    words = [word for name, at_ms in bounds.items() for word in (f"--{name}", str(at_ms))]
    told = lived("history", CLIENT, "--sessions", *words, "--json")
    assert (told.code, [one["sessionIdentifier"] for one in told.objects]) == (0, listed)
    assert len(lived("history", CLIENT, "--client", "--sessions", *words).out.splitlines()) == len(listed)
    with thingline.open(store_url) as opened:
        found = opened.sessions(CLIENT, from_=bounds.get("from"), to=bounds.get("to"))
    assert [session.session_id for _, session in found] == listed


def refused(done: Done) -> tuple[int, str]:
    """Give how it ended, once nothing is on stdout."""
    assert done.out == "", done
    return done.code, done.err


def test_sessions_are_told_as_known_now_only(sampled: Run) -> None:
    for place in (("pump-18",), ("--all",)):
        code, words = refused(sampled("history", *place, "--sessions", "--known-at", AFTER))
        assert (code, "as known now only" in words) == (2, True)


def test_sessions_of_a_window_without_time_are_refused(sampled: Run, store_url: str) -> None:
    assert refused(sampled("history", "pump-18", "--sessions", "--from", AFTER, "--to", AT))[0] == 2
    with thingline.open(store_url) as opened, pytest.raises(UsageError):
        opened.sessions("pump-18", from_=AT, to=AT)


@pytest.fixture
def purged(sampled: Run) -> Run:
    """Type commands about the sample recording, purged up to HORIZON."""
    assert sampled("db", "purge", "--before", HORIZON).code == 0
    return sampled


@pytest.mark.parametrize(
    "command",
    [
        ("history", "pump-18"),
        ("history", "pump-18", "--periods"),
        ("history", "pump-18", "--sessions"),
        ("uptime",),
        ("uptime", "pump-18"),
        ("uptime", "--group-by", "realm"),
        ("outages",),
        ("flapping",),
        ("takeovers",),
        ("series", "--bucket", "1h"),
        ("coverage",),
        ("fidelity",),
        ("fidelity", "--by", "day"),
    ],
    ids=" ".join,
)
def test_a_window_that_begins_before_the_horizon_is_refused_and_prints_nothing(
    purged: Run, command: tuple[str, ...]
) -> None:
    for form in ((), ("--json",)):
        code, words = refused(purged(*command, "--from", JUST_BEFORE, "--to", AFTER, *form))
        assert (code, "purged" in words) == (5, True), words
        done = purged(*command, "--from", HORIZON, "--to", AFTER, *form)
        assert done.code == 0, done


def test_what_ends_before_the_horizon_is_refused_though_it_names_no_beginning(
    purged: Run, store_url: str
) -> None:
    for command in (("history", "pump-18", "--sessions"), ("fidelity",), ("fidelity", "--by", "thing")):
        assert refused(purged(*command, "--to", HORIZON))[0] == 5
    with thingline.open(store_url) as opened:
        with pytest.raises(IndexNotReady):
            opened.repeated(to=HORIZON)
        with pytest.raises(IndexNotReady):
            opened.coverage(JUST_BEFORE)


def test_without_a_window_a_purged_store_tells_what_it_has(purged: Run) -> None:
    sessions = purged("history", "pump-18", "--sessions", "--json").objects
    assert [one["disconnected"] for one in sessions] == ["2026-11-01T05:30:00.000Z"]
    assert purged("fidelity").code == 0


@pytest.mark.parametrize("given", [("--all", "--sessions"), ("pump-18", "--periods", "--sessions")])
def test_sessions_beside_another_list_are_refused(sampled: Run, given: tuple[str, ...]) -> None:
    code, words = refused(sampled("history", *given))
    assert (code, "Sessions are listed of one THING" in words) == (2, True)
