"""The memory of ingest, export, backfill and `ask` is constant, whatever comes: peak of the real process, in MiB.

THINGLINE_BENCH_EVENTS says how many events (a million); nothing here asserts a time.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from ingest.simulate import Choices, simulate
from tests.processes import measured

MOST_MIB = 300
EVENTS = int(os.environ.get("THINGLINE_BENCH_EVENTS", "1000000"))
EVENTS_A_THING = 34  # of a day of a simulated fleet, about


def event(number: int, **more: object) -> bytes:
    members = {
        "clientId": f"client-{number}",
        "eventType": "connected",
        "timestamp": 1_736_121_600_000 + number,
    }
    return json.dumps({**members, "sessionIdentifier": f"s{number}", **more}).encode() + b"\n"


FLOODS: dict[str, Iterable[bytes]] = {
    "one endless line": (b'{"clientId":"' + b"x" * (1 << 20) for _ in range(200)),
    "records of a mebibyte": (event(number, blob="x" * 1_000_000) for number in range(150)),
    "broken records of 100 kB": (
        b'{"clientId":1,"blob":"' + b"x" * 100_000 + b'"}\n' for number in range(2_000)
    ),
    "tiny scalars": (b"1\n" * 100_000 for _ in range(3)),
    "tiny objects": (b"{}\n" * 10_000 for _ in range(4)),
    "an envelope of tiny objects": [b'{"Records":[', b",".join([b'{"body":""}'] * 40_000), b"]}\n"],
    "brackets": (b"[" * (1 << 20) for _ in range(50)),
}


def ended(chunks: Iterable[bytes]) -> Iterator[bytes]:
    return itertools.chain(chunks, [b"\n", event(10**6)])


def peak_of_ingest(path: Path, store: Path) -> float:
    code, out, err, peak_mib = measured("ingest", str(path), "--store", str(store), "--json")
    assert code == 0, err
    assert json.loads(out)["stored"] >= 1
    return peak_mib


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_does_not_fill_the_memory(flood: str, tmp_path: Path) -> None:
    with (tmp_path / "flood").open("wb") as file:
        file.writelines(ended(FLOODS[flood]))
    assert peak_of_ingest(tmp_path / "flood", tmp_path / "store.db") < MOST_MIB


def test_a_file_that_unpacks_to_a_thousand_times_its_size_does_not_fill_the_memory(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "bomb.gz", "wb", compresslevel=9) as file:
        for _ in range(300):
            file.write(b"x" * (1 << 20))
        file.write(b"\n" + event(1))
    assert (tmp_path / "bomb.gz").stat().st_size < 1 << 20
    assert peak_of_ingest(tmp_path / "bomb.gz", tmp_path / "store.db") < MOST_MIB


@pytest.mark.bench
def test_ingest_export_and_questions_of_a_fleet_take_constant_memory(
    store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    choices = Choices(things=max(1, EVENTS // EVENTS_A_THING // 2), days=2, check_minutes=720)
    fleet = simulate(choices)
    with (tmp_path / "fleet.ndjson").open("wb") as file:
        file.writelines(fleet.lines())
    code, out, err, ingesting_mib = measured(
        "ingest", str(tmp_path / "fleet.ndjson"), "--store", store_url, "--json", timeout_s=7_200
    )
    assert code == 0, err
    told = json.loads(out)
    with (tmp_path / "export.ndjson").open("wb") as file:
        code, _, err, exporting_mib = measured(
            "export", "evidence", "--store", store_url, stdout=file, timeout_s=7_200
        )
    assert code == 0, err
    questions, names = EVENTS // 10, list(fleet.kinds())
    with (tmp_path / "questions.ndjson").open("w") as file:
        for number in range(questions):  # about every thing, again and again, at any time of the two days
            at_ms = rng.randrange(fleet.from_ms, fleet.to_ms)
            file.write(f'{{"thingName": "{names[number % len(names)]}", "at": {at_ms}}}\n')
    with (tmp_path / "answers.ndjson").open("wb") as file:
        code, _, err, asking_mib = measured(
            "ask", str(tmp_path / "questions.ndjson"), "--store", store_url, stdout=file, timeout_s=7_200
        )
    assert code == 0, err
    with (tmp_path / "answers.ndjson").open("rb") as file:
        answered = sum(b'"connected"' in line for line in file)
    print(
        f"\n{told['events']:,} events and {told['checks']:,} checks of {choices.things:,} things: ingest"
        f" {ingesting_mib:.0f} MiB, export evidence {exporting_mib:.0f} MiB, ask of {questions:,} {asking_mib:.0f} MiB"
    )
    assert told["events"] > 0.9 * EVENTS
    assert answered > 0.9 * questions
    assert max(ingesting_mib, exporting_mib, asking_mib) < MOST_MIB


@pytest.mark.bench
def test_a_backfill_of_a_fleet_takes_constant_memory(store_url: str, tmp_path: Path) -> None:
    """The largest of its processes; without checks, for from the first of them on it ingests."""
    choices = Choices(things=max(1, EVENTS // EVENTS_A_THING // 2), days=2, check_minutes=0)
    with (tmp_path / "fleet.ndjson").open("wb") as file:
        file.writelines(simulate(choices).lines())
    code, out, err, peak_mib = measured(
        "backfill", str(tmp_path / "fleet.ndjson"), "--store", store_url, "--json", timeout_s=7_200
    )
    assert code == 0, err
    told = json.loads(out)
    print(f"\n{told['events']:,} events of {choices.things:,} things: backfill {peak_mib:.0f} MiB")
    assert told["events"] > 0.9 * EVENTS
    assert peak_mib < MOST_MIB
