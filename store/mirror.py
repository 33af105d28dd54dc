"""The columnar mirror: a DuckDB file beside the store, from which SQL about the whole fleet is answered.

Nothing is in it that is not in the store: losing it costs a rebuild. It is refreshed by what changed since its
watermark, corrections included, and renamed into its place, so that many processes read it while one refreshes; a
purge, or a forgotten device, builds it anew. Where, after a refresh, its timelines are not those of the store, it is
built anew too.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from sqlalchemy.engine import URL

from store.asker import Asker
from store.engine import SCHEMA_REVISION, Store, masked, translated
from store.errors import StoreUnreachable
from store.mirror_reads import Changed, Reader
from store.mirror_schema import FORMAT, NAMES

_REASON_AT = 5  # in a row of `timeline`


class Mirrored(NamedTuple):
    """A mirror as a refresh left it."""

    path: Path
    known_at: int  # the watermark of the store that it holds
    built: bool  # anew, and not by what changed
    clients: int  # that were read


def mirror_path(url: URL) -> Path:
    """Give the place of a store's mirror: beside a SQLite file, else in this user's cache folder."""
    if url.get_backend_name() == "sqlite":
        place = Path(url.database or "")
        return place.with_name(place.name + ".duckdb")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    name = hashlib.sha256(masked(url).encode()).hexdigest()[:16]
    return Path(cache) / "thingline" / f"{name}.duckdb"


def mirrored_at(path: Path) -> int | None:
    """Tell as known at which moment a mirror is; None where there is none."""
    from store import columnar

    held = columnar.mirrored(path) if path.exists() else None
    return None if held is None or held[0].get("format") != FORMAT else held[0]["known_at"]


def drop_mirror(url: URL) -> None:
    """Delete a store's mirror, where there is one at its usual place: it holds names."""
    path = mirror_path(url)
    if path.exists():
        with _alone(path):
            path.unlink(missing_ok=True)


def refresh(store: Store, path: Path, *, say: Callable[[str], None] = lambda _: None) -> Mirrored:
    """Bring a mirror up to date with the store, building it where there is none.

    Others may read it meanwhile, and go on with what they read. Raises StoreUnreachable where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            return _refreshed(store, path, say)
    except OSError as error:
        raise StoreUnreachable(
            f"The mirror {path} cannot be written: {error.strerror or error}. Name another place by --mirror."
        ) from error


def _refreshed(store: Store, path: Path, say: Callable[[str], None]) -> Mirrored:
    from store import columnar

    held = columnar.mirrored(path) if path.exists() else None
    signature = _file_signature(store)
    with store.detached() as driver, translated(store.url):
        asker = Asker(driver, is_sqlite=store.is_sqlite)
        with asker.snapshot() as known_at:
            if signature is None:
                signature = driver.execute("SELECT pg_current_snapshot()::text").fetchone()[0]
            mark = {
                "format": FORMAT,
                "revision": SCHEMA_REVISION,
                "known_at": known_at,
                "signature": signature,
                "horizon_ms": asker.care.horizon_ms,
                "known_horizon_ms": asker.care.known_horizon_ms,
                "forgotten": asker.care.forgotten,
                "begins_ms": asker.begins_ms(known_at),
            }
            if held is not None and held[0] == mark:
                return Mirrored(path, known_at, built=False, clients=0)
            reader = Reader(asker, driver, is_sqlite=store.is_sqlite, known_at=known_at)
            with _beside(path) as (new, folder):
                if held is not None and _goes_on(held[0], mark):
                    shutil.copyfile(path, new)
                    changed = reader.since(held[0]["known_at"], held[1])
                    if _load(reader, changed, mark, new, folder, held_at=held[0]["known_at"]):
                        _put(store, new, path)
                        return Mirrored(
                            path, known_at, built=False, clients=len({no for no, *_ in changed.spans})
                        )
                    new.unlink()
                    shutil.rmtree(folder)
                say(f"building the mirror {path}")
                changed = reader.everything()
                if not _load(reader, changed, mark, new, folder, held_at=None):
                    raise StoreUnreachable(
                        f"The mirror {path} does not come out as the store is; `thingline db check` may say why."
                    )
                _put(store, new, path)
                return Mirrored(path, known_at, built=True, clients=len({no for no, *_ in changed.spans}))


def _goes_on(held: dict[str, Any], mark: dict[str, Any]) -> bool:
    """Tell whether a mirror can be brought up to date by what changed."""
    same = ("format", "revision", "horizon_ms", "known_horizon_ms", "forgotten")
    return held["known_at"] <= mark["known_at"] and all(held.get(name) == mark[name] for name in same)


def _load(
    reader: Reader, changed: Changed, mark: dict[str, Any], new: Path, folder: Path, *, held_at: int | None
) -> bool:
    """Write rows into files and load them; tells whether the timelines came out as those of the store."""
    from store import columnar

    folder.mkdir()
    reasons: set[int | None] = set()
    with (folder / "timeline.csv").open("w") as one, (folder / "stretches.csv").open("w") as other:
        timeline, stretches = csv.writer(one, lineterminator="\n"), csv.writer(other, lineterminator="\n")
        for seen, cut in reader.timelines(changed.spans):
            timeline.writerows(seen)
            stretches.writerows(cut)
            reasons.update(row[_REASON_AT] for row in seen)
    for name, rows in (
        ("changed", changed.spans),
        ("unsettled", changed.unsettled),
        ("sessions_changed", [(no,) for no in changed.sessions]),
        ("watching", reader.watching()),
    ):
        with (folder / f"{name}.csv").open("w") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    told = sorted(no for no in reasons if no is not None)
    _write(folder, "reasons", ((no, reader.reason(no)) for no in told))
    _write(folder, "sessions", reader.sessions(changed.sessions))
    _write(folder, "clients", reader.clients)
    _write(folder, "speakers", reader.speakers(mark["horizon_ms"]))
    _write(folder, "annotations", reader.annotations())
    _write(folder, "mark", [tuple(mark.values())])
    return columnar.load(new, folder, known_at=mark["known_at"], held_at=held_at) == changed.fingerprint


def _write(folder: Path, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    encode = msgspec.json.Encoder().encode
    with (folder / f"{table}.ndjson").open("wb") as file:
        for row in rows:
            file.write(encode(dict(zip(NAMES[table], row, strict=True))) + b"\n")


def _file_signature(store: Store) -> str | None:
    """Tell one state of a SQLite file from another, without reading it; None: of PostgreSQL, which is asked."""
    if not store.is_sqlite:
        return None
    place = Path(store.url.database or "")
    told = []
    for path in (place, place.with_name(place.name + "-wal")):
        with contextlib.suppress(OSError):
            found = path.stat()
            told.append(f"{found.st_size}:{found.st_mtime_ns}" if found.st_size else "")
    return " ".join(told).strip()


def _put(store: Store, new: Path, path: Path) -> None:
    """Give a mirror its name, and to whom the store may be read."""
    place = Path(store.url.database or "") if store.is_sqlite else None
    os.chmod(new, 0o600 if place is None else place.stat().st_mode & 0o666)
    os.replace(new, path)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[tuple[Path, Path]]:
    """Give the places of a new mirror and of what is loaded into it; both are gone at the end."""
    new, folder = path.with_name(path.name + ".new"), path.with_name(path.name + ".rows")

    def clear() -> None:
        for each in (new, new.with_name(new.name + ".wal")):
            each.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    clear()  # what a killed process left
    try:
        yield new, folder
    finally:
        clear()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process refresh a mirror at a time; the next finds it fresh."""
    with path.with_name(path.name + ".lock").open("a+b") as handle:
        try:
            import fcntl
        except ImportError:  # a system without flock: each writes the same, and the last stays
            pass
        else:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
