"""What a description of many things will ask the store, read for all of them at once.

On PostgreSQL each seek is an exchange with the server, which costs more than the seek; here a statement is run for many
keys in one. The statements are those of store/seeks.py, and so are the rows: whoever asks afterwards finds them, and
asks the store himself where he does not. SQLite, which is asked in this process, is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

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
        found[row[:width]].append(row[width:])
    return found


class Ahead(NamedTuple):
    """The rows of one statement for many keys: the names of a key, what was the same for all, and each one's rows."""

    names: tuple[str, ...]
    values: Mapping[str, Any]
    rows: Mapping[tuple[Any, ...], Rows]

    def find(self, asked: Mapping[str, Any]) -> Rows | None:
        """Find the rows of what is asked; None: that is none of the keys, or was asked otherwise."""
        found = self.rows.get(tuple([asked[name] for name in self.names]))
        if found is None or any(asked[name] != value for name, value in self.values.items()):
            return None
        return found


def standing_ahead(asker: Asker, names: Sequence[str], at_ms: int, known_at: int) -> None:
    """Read what telling how things stand at an instant takes, as known at a moment; until more is read ahead.

    Or until the snapshot ends.
    """
    asker.forget_ahead()
    if asker.is_sqlite or len(names) < 2:
        return
    ask, known = asker.read_many, {"known_at": known_at}
    named = [{"name": name} for name in names]
    clients = ask("client", named, realm=asker.realm)
    things = [{"thing_no": rows[0][0]} for rows in ask("thing", named, realm=asker.realm) if rows]
    bound = ask("bound", things, at_ms=at_ms, **known)
    speaking = [{"client_no": number} for number in {rows[0][0] for rows in (*clients, *bound) if rows}]
    ask("client_id", speaking)
    points = ask("point", speaking, at_ms=at_ms, **known)
    opened = [
        {**_slot(key["client_no"]), "open_at": rows[0][OPEN_AT]}
        for key, rows in zip(speaking, points, strict=True)
        if rows and rows[0][OPEN_AT] is not None
    ]
    ask("last_slot", opened, none=NO_SLOT, **known)


def registry_ahead(asker: Asker, names: Sequence[str], known_at: int, *, whole: bool) -> None:
    """Read what telling of the registrations of things takes; `whole`: of their types, groups and attributes too.

    Rows that only some things need, for their registrations ended or began anew, are not among them.
    """
    asker.forget_ahead()
    if asker.is_sqlite or len(names) < 2:
        return
    ask, known = asker.read_many, {"known_at": known_at}
    named = [{"name": name} for name in names]
    told = ask("registry", named, realm=asker.realm, **known)
    found = ask("client", named, realm=asker.realm)
    clients = [{"client_no": rows[0][0]} for rows in found if rows]
    if whole:
        ask("index_answers", clients, **known)
    told_of = [{"client_no": rows[0][0]} for rows, said in zip(found, told, strict=True) if rows and said]
    ask("asked_after", told_of, at_ms=FIRST_MS, **known)
    slots = [_slot(key["client_no"]) for key in told_of]
    ask("slots_after", slots, from_ms=FIRST_MS - LONGEST_SWEEP_MS, none=NO_SLOT, **known)


def _slot(client_no: int) -> dict[str, int]:
    return {"block_no": client_no // BLOCK, "slot": client_no % BLOCK}
