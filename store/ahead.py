"""What a description of many things will ask the store, read for all of them at once.

On PostgreSQL each seek is an exchange with the server, which costs more than the seek; here a statement is run for many
keys in one. The statements are those of store/seeks.py, and so are the rows: whoever asks afterwards finds them, and
asks the store himself where he does not. SQLite, which is asked in this process, is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from store.packing import BLOCK, LONGEST_SWEEP_MS, SLOT_BYTES

if TYPE_CHECKING:
    from store.asker import Asker

Key = Mapping[str, Any]
Rows = list[tuple[Any, ...]]

FIRST_MS = -(1 << 62)  # before any asking
NO_SLOT = bytes(SLOT_BYTES)
OPEN_AT = -1  # where a row of "point" has open_at


def for_many(statement: str, keys: Sequence[Key]) -> tuple[str, dict[str, list[Any]]]:
    """Turn a statement of PostgreSQL into one for many keys, which stand before each row; a key's rows keep order.

    Keys name the same parameters in the same order. Gives the statement, and the parameters that stand for the keys.
    """
    names = list(keys[0])
    arrays, told = [], {}
    for name in names:
        values = told[f"all_{name}"] = [key[name] for key in keys]
        arrays.append(f"%(all_{name})s::{_type_of(values)}[]")
        statement = statement.replace(f"%({name})s", f"wanted.{name}")
    listed = ", ".join(names)
    return (
        f"SELECT wanted.*, s.* FROM unnest({', '.join(arrays)}) AS wanted({listed}) CROSS JOIN LATERAL ({statement}) s",
        told,
    )


def _type_of(values: Sequence[Any]) -> str:
    if isinstance(values[0], str):
        return "text"
    return "integer" if all(-(1 << 31) <= value < 1 << 31 for value in values) else "bigint"


def by_key(rows: Sequence[tuple[Any, ...]], keys: Sequence[Key]) -> dict[tuple[Any, ...], Rows]:
    """Sort the rows of such a statement by their keys; a key without rows has none."""
    width = len(keys[0])
    found: dict[tuple[Any, ...], Rows] = {tuple(key.values()): [] for key in keys}
    for row in rows:
        found[tuple(islice(row, width))].append(row[width:])
    return found


def read_ahead(asker: Asker, names: Sequence[str], at_ms: int, known_at: int) -> None:
    """Read what describing things at an instant takes, as known at a moment; until the next call or the snapshot's end.

    Rows that only some things need, for their registrations ended or began anew, are not among them.
    """
    asker.forget_ahead()
    if asker.is_sqlite or len(names) < 2:
        return
    ask = asker.read_many
    realm, known = {"realm": asker.realm}, {"known_at": known_at}
    named = [{"name": name} for name in names]
    told = ask("registry", named, **realm, **known)
    numbers = [rows[0][0] for rows in ask("client", named, **realm) if rows]
    things = [{"thing_no": rows[0][0]} for rows in ask("thing", named, **realm) if rows]
    bound = {rows[0][0] for rows in ask("bound", things, at_ms=at_ms, **known) if rows}
    clients = [{"client_no": number} for number in numbers]
    ask("index_answers", clients, **known)
    if any(told):
        ask("asked_after", clients, at_ms=FIRST_MS, **known)
        slots = [{"block_no": number // BLOCK, "slot": number % BLOCK} for number in numbers]
        ask("slots_after", slots, from_ms=FIRST_MS - LONGEST_SWEEP_MS, none=NO_SLOT, **known)
    speaking = [{"client_no": number} for number in {*numbers, *bound}]
    ask("client_id", speaking)
    points = ask("point", speaking, at_ms=at_ms, **known)
    opened = [
        {
            "block_no": key["client_no"] // BLOCK,
            "slot": key["client_no"] % BLOCK,
            "open_at": rows[0][OPEN_AT],
        }
        for key, rows in zip(speaking, points, strict=True)
        if rows and rows[0][OPEN_AT] is not None
    ]
    ask("last_slot", opened, none=NO_SLOT, **known)
