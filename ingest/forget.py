"""Forget a device: its names, addresses and principals leave the store; what it adds to the totals stays.

The client and the thing get a random name, so that nothing leads back to them; sessions, transitions and counts are
as they were. Digests are replaced as well, for they would tell a guess from the truth: the same recording, ingested
again, is therefore new evidence of a new client under the real name.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ingest.reduce import CONNECTED_REASON
from store.engine import Store, translated
from store.model import DUPLICATE_CLIENTID, Event, Observation, bytes_of
from store.rows import Rows, Values, rows_of

_PREFIX = "forgotten-"
_RENAMED = re.compile(rf"{_PREFIX}[0-9a-f]{{32}}")
_MARK = 1 << 16  # divides the digests that are given here, and one of so many others
_RULED = frozenset({CONNECTED_REASON, DUPLICATE_CLIENTID})  # what rules look for means no device of that name
_NAMES = ("thingName", "clientId")
# Members of a check or a registry event that name nobody. (docs/recording.md)
_PLAIN = frozenset(
    {"api", "askedAt", "connected", "connectedSince", "disconnectReason", "disconnectedSince", "eventType"}
    | {"operation", "timestamp", "versionNumber"}
)
_WITHIN = frozenset({"connectivity", "response", "things"})
_REFERENCES = (
    ("evidence", ("source_no", "reason_no", "principal_no", "ip_no")),
    ("checks", ("source_no", "reason_no")),
    ("transitions", ("reason_no",)),
    ("session_rows", ("reason_no",)),
    *((table, ("source_no",)) for table in ("observations", "sweeps", "quarantine")),
)
_BEARING = "SELECT DISTINCT client_no, thing_no FROM evidence WHERE thing_no IS NOT NULL AND client_no IN"
_OF_DEVICE = "SELECT at_ms, client_no, digest, principal_no, ip_no FROM evidence WHERE"


@dataclass(slots=True)
class Forgotten:
    """What was forgotten: how many names, and how many rows of each kind were rewritten."""

    names: int = 0  # of clients and things
    evidence: int = 0
    checks: int = 0
    observations: int = 0
    quarantined: int = 0
    texts: int = 0  # principals, addresses and names of sources
    annotations: int = 0  # versions
    scrubbed: bool = True  # no old page of the file is left

    def as_json(self) -> dict[str, Any]:
        """Give the object of `forget --json`."""
        return {name: getattr(self, name) for name in self.__slots__}


def forget(store: Store, name: str, *, realm: str, by_client: bool = False) -> Forgotten:
    """Forget a thing and the clients that speak for it alone; or, `by_client`, one client.

    All in one transaction, which waits for running writers and holds up others; they notice, and keep no number of
    the old names. On SQLite the file is written anew, so that no free page holds a name. Run again, it finds less
    to do. Memory: the evidence of one device, the interned texts, and the annotations.
    """
    return _rewritten(store, lambda rows, done: _forget(rows, name, realm, done, by_client=by_client))


def is_rewritten(evidence: Event | Observation, number: int) -> bool:
    """Tell whether evidence was rewritten here, so that it bears another digest than its own."""
    return number % _MARK == 0 or any(isinstance(said, str) and _RENAMED.search(said) for said in evidence)


def forget_author(store: Store, name: str) -> Forgotten:
    """Put one random name in the place of an author of annotations, in every realm. As `forget` otherwise."""

    def rename(rows: Rows, done: Forgotten) -> None:
        if bytes_of(name) is not None:
            statement = "UPDATE annotation_rows SET author = ? WHERE author = ?"
            done.annotations += rows.changed(statement, [(_PREFIX + secrets.token_hex(16), name)])
        done.names += bool(done.annotations)

    return _rewritten(store, rename)


def _rewritten(store: Store, rewrite: Callable[[Rows, Forgotten], None]) -> Forgotten:
    """Rewrite rows in one transaction, alone; and a SQLite file, so that no free page holds what they held."""
    done = Forgotten()
    with translated(store.url):
        writing = rows_of(store)
        try:
            writing.begin_care(alone=True)
            rewrite(writing, done)
            writing.changed("UPDATE care SET forgotten = forgotten + ?", [(1,)])
            writing.commit()
        finally:
            writing.rollback()
            writing.close()
        if store.is_sqlite:
            with store.detached() as driver:
                driver.execute("VACUUM")
                ((held_up, _, _),) = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                done.scrubbed = not held_up
    return done


def _forget(writing: Rows, name: str, realm: str, done: Forgotten, *, by_client: bool) -> None:
    things, clients = _device(writing, name, realm, by_client=by_client)
    instead = {name: _PREFIX + secrets.token_hex(16)}
    for client_id in clients.values():
        instead.setdefault(client_id, _PREFIX + secrets.token_hex(16))
    mentions = _Mentions(instead)
    for table, columns, rows in (
        ("things", ("thing_name", "thing_no"), things),
        ("clients", ("client_id", "client_no"), clients),
    ):
        statement = f"UPDATE {table} SET {columns[0]} = ? WHERE {columns[1]} = ?"
        done.names += writing.changed(statement, [(instead[said], number) for number, said in rows.items()])
    texts = _evidence(writing, things, clients, mentions, done)
    _checks(writing, clients, mentions, done)
    _observations(writing, mentions, done)
    _quarantine(writing, mentions, done)
    _annotations(writing, realm, mentions, done)
    _texts(writing, texts, mentions, done)


def _device(
    writing: Rows, name: str, realm: str, *, by_client: bool
) -> tuple[dict[int, str], dict[int, str]]:
    """Find the thing and the clients of a device, by number."""
    things: dict[int, str] = {}
    if bytes_of(name) is None:
        return {}, {}  # nobody is called so; what was refused for that very name is looked for all the same
    of_realm = "JOIN realms r ON r.realm_no = o.realm_no WHERE r.name = ?"
    own = f"SELECT o.client_no, o.client_id FROM clients o {of_realm} AND o.client_id = ?"
    clients: dict[int, str] = {row[0]: row[1] for row in writing.fetch(own, (realm, name))}
    if not by_client:
        found = writing.fetch(
            f"SELECT o.thing_no, o.thing_name FROM things o {of_realm} AND o.thing_name = ?", (realm, name)
        )
        things = {row[0]: row[1] for row in found}
        for (thing_no,) in [(number,) for number in things]:
            bearers = writing.fetch("SELECT DISTINCT client_no FROM evidence WHERE thing_no = ?", (thing_no,))
            for number in [row[0] for row in bearers]:
                bears = {row[1] for row in writing.fetch(f"{_BEARING} (?)", (number,))}
                if bears == {thing_no}:
                    row = writing.fetch("SELECT client_id FROM clients WHERE client_no = ?", (number,))[0]
                    clients[number] = row[0]
    return things, clients


def _evidence(
    writing: Rows,
    things: Mapping[int, str],
    clients: Mapping[int, str],
    mentions: _Mentions,
    done: Forgotten,
) -> set[int]:
    """Take from events all that names the device; gives the numbers of the texts that its own named."""
    texts: set[int] = set()
    rows: dict[Values, Values] = {}
    for column, numbers in (("client_no", clients), ("thing_no", things)):
        for number in numbers:
            rows |= {tuple(row[:3]): row for row in writing.fetch(f"{_OF_DEVICE} {column} = ?", (number,))}
    for row in rows.values():
        texts |= {number for number in row[3:] if number is not None}
    done.evidence += writing.changed(
        "UPDATE evidence SET digest = ?, principal_no = NULL, ip_no = NULL, extra = NULL"
        " WHERE at_ms = ? AND client_no = ? AND digest = ?",
        [(_digest(), *key) for key in rows],
    )
    mentioning = "SELECT at_ms, client_no, digest, extra FROM evidence WHERE replace(extra, ?, '') <> extra"
    others = {
        tuple(row[:3]): mentions.replaced(row[3])
        for form in mentions.storable
        for row in writing.fetch(mentioning, (form,))
        if mentions.within(row[3])
    }
    done.evidence += writing.changed(
        "UPDATE evidence SET digest = ?, extra = ? WHERE at_ms = ? AND client_no = ? AND digest = ?",
        [(_digest(), extra, *key) for key, extra in others.items()],
    )
    return texts


def _digest() -> int:
    return secrets.randbits(48) * _MARK - (1 << 63)


def _checks(writing: Rows, clients: Mapping[int, str], mentions: _Mentions, done: Forgotten) -> None:
    updates: list[Values] = []
    columns = "SELECT client_no, about_ms, asked_ms, digest, answer FROM checks"
    found = [row for number in clients for row in writing.fetch(f"{columns} WHERE client_no = ?", (number,))]
    others = {
        tuple(row[:4]): row
        for form in mentions.storable
        for row in writing.fetch(f"{columns} WHERE replace(answer, ?, '') <> answer", (form,))
        if row[0] not in clients and mentions.within(row[4])
    }
    found += others.values()
    for row in found:
        own = mentions.instead.get(clients.get(row[0], ""))
        answer = _dumped(_bare(json.loads(row[4]), mentions, own))
        updates.append((_digest(), answer, *row[:4]))
    done.checks += writing.changed(
        "UPDATE checks SET digest = ?, answer = ?"
        " WHERE client_no = ? AND about_ms = ? AND asked_ms = ? AND digest = ?",
        updates,
    )


def _observations(writing: Rows, mentions: _Mentions, done: Forgotten) -> None:
    columns = "SELECT at_ms, digest, subject, body FROM observations"
    found = {
        tuple(row[:2]): row
        for form in mentions.storable
        for row in writing.fetch(f"{columns} WHERE subject = ? OR replace(body, ?, '') <> body", (form, form))
        if row[2] in mentions.instead or mentions.within(row[3])
    }
    updates: list[Values] = []
    for at_ms, digest, subject, body in found.values():
        own, said = mentions.instead.get(subject), json.loads(body)
        if own is None and subject is not None and said.get("thingName") not in mentions.instead:
            updates.append((_digest(), subject, mentions.replaced(body), at_ms, digest))
        else:
            bare = _dumped(_bare(said, mentions, own))
            updates.append((_digest(), subject if own is None else own, bare, at_ms, digest))
    done.observations += writing.changed(
        "UPDATE observations SET digest = ?, subject = ?, body = ? WHERE at_ms = ? AND digest = ?", updates
    )


def _quarantine(writing: Rows, mentions: _Mentions, done: Forgotten) -> None:
    updates: list[Values] = []
    page = "SELECT quarantine_no, head, detail FROM quarantine WHERE quarantine_no > ? ORDER BY quarantine_no LIMIT 100"
    rows = writing.fetch(page, (-1,))
    while rows:  # heads are large
        updates += [
            (b"", secrets.token_hex(32), "forgotten", number)
            for number, head, detail in rows
            if mentions.within(detail) or mentions.within_bytes(bytes(head))
        ]
        rows = writing.fetch(page, (rows[-1][0],))
    done.quarantined += writing.changed(
        "UPDATE quarantine SET head = ?, sha256 = ?, detail = ? WHERE quarantine_no = ?", updates
    )


def _annotations(writing: Rows, realm: str, mentions: _Mentions, done: Forgotten) -> None:
    """Rename the device in annotations; of what was said of it alone only what it was and when is kept.

    A note or a ticket may say anything about it, and whoever wrote them may be its owner.
    """
    own, others = list[Values](), list[Values]()
    rows = "SELECT a.annotation_no, a.version, a.scope, a.subject, a.ticket, a.note, m.name FROM annotation_rows a"
    for number, version, scope, subject, ticket, note, its_realm in writing.fetch(
        f"{rows} JOIN realms m ON m.realm_no = a.realm_no"
    ):
        if scope == "thing" and its_realm == realm and subject in mentions.instead:
            own.append((mentions.instead[subject], number, version))
        elif any(text is not None and mentions.within(text) for text in (ticket, note)):
            said = (None if text is None else mentions.replaced(text) for text in (ticket, note))
            others.append((*said, number, version))
    place = "WHERE annotation_no = ? AND version = ?"
    bare = "ticket = NULL, note = NULL, author = NULL"
    done.annotations += writing.changed(f"UPDATE annotation_rows SET subject = ?, {bare} {place}", own)
    done.annotations += writing.changed(f"UPDATE annotation_rows SET ticket = ?, note = ? {place}", others)


def _texts(writing: Rows, texts: set[int], mentions: _Mentions, done: Forgotten) -> None:
    """Delete principals and addresses that nobody else has; put other names into those that mention the device."""
    if texts:
        listed = ", ".join(str(int(number)) for number in sorted(texts))
        for table, columns in _REFERENCES:
            for column in columns:
                used = f"SELECT DISTINCT {column} FROM {table} WHERE {column} IN ({listed})"
                texts -= {row[0] for row in writing.fetch(used)}
        done.texts += writing.changed(
            "DELETE FROM texts WHERE text_no = ?", [(number,) for number in sorted(texts)]
        )
    renamed = [
        (mentions.replaced(text), number)
        for number, text in writing.fetch("SELECT text_no, text FROM texts")
        if text not in _RULED and mentions.within(text)
    ]
    done.texts += writing.changed("UPDATE texts SET text = ? WHERE text_no = ?", renamed)
    sources = [
        (mentions.replaced(source), source)
        for (source,) in writing.fetch("SELECT DISTINCT source FROM watches")
        if mentions.within(source)
    ]
    writing.changed("UPDATE watches SET source = ? WHERE source = ?", sources)


# --- Mentions -----------------------------------------------------------------------------------------------


class _Mentions:
    """Where text speaks of a device: its names as whole words, plain, as JSON escapes them, or in base64."""

    def __init__(self, instead: Mapping[str, str]) -> None:
        self.instead = instead
        forms = {form: new for name, new in instead.items() for form in (name, json.dumps(name)[1:-1])}
        words = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        self.forms = forms
        self.storable = [
            form for form in forms if bytes_of(form) is not None
        ]  # what a column can be asked for
        self._words = re.compile(rf"(?<![\w:-])(?:{words})(?![\w:-])")
        self._bytes = re.compile(
            rb"(?<![\w:-])(?:"
            + b"|".join(
                re.escape(form.encode("utf-8", "surrogatepass"))
                for form in sorted(forms, key=len, reverse=True)
            )
            + rb")(?![\w:-])"
        )
        self._encoded = [
            part for name in instead for part in _in_base64(name.encode("utf-8", "surrogatepass"))
        ]

    def within(self, text: str) -> bool:
        return self._words.search(text) is not None

    def within_bytes(self, data: bytes) -> bool:
        return self._bytes.search(data) is not None or any(part in data for part in self._encoded)

    def replaced(self, text: str) -> str:
        return self._words.sub(lambda found: self.forms[found[0]], text)


def _in_base64(name: bytes) -> Iterable[bytes]:
    """Give what a name looks like within base64, at each of the three places where it may begin."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + name).rstrip(b"=")
        part = encoded[-(-before * 8 // 6) : len(encoded) - (1 if (before + len(name)) % 3 else 0)]
        if len(part) >= 6:  # a shorter one is found by chance
            yield part


def _bare(value: Any, mentions: _Mentions, own: str | None) -> Any:
    """Keep of a JSON value what names nobody; names of the device, or of whoever is meant, become `own`."""
    if isinstance(value, list):
        return [_bare(each, mentions, own) for each in value]
    if not isinstance(value, dict):
        return None
    kept: dict[str, Any] = {}
    for key, said in value.items():
        if key in _NAMES and isinstance(said, str):
            kept[key] = mentions.instead.get(said, said if own is None else own)
        elif key in _WITHIN:
            kept[key] = _bare(said, mentions, own)
        elif key == "error":
            kept[key] = "forgotten"
        elif key in _PLAIN and not (isinstance(said, str) and mentions.within(said)):
            kept[key] = said
    return kept


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
