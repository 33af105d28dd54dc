"""No password is ever printed: not with the store's URL, not by a driver, not for a URL that was mistyped."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from store.engine import masked, open_reader, open_writer, parse_url
from store.errors import ThinglineError
from tests.contract.test_commands import SAMPLE, Run, on_any

__all__ = ["on_any"]  # fixture

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s3cr3t@127.0.0.1:1/db",
        "postgresql://user:s3cr3t@127.0.0.1:1/db?password=s3cr3t&sslpassword=s3cr3t&sslmode=disable",
        "postgresql://user@/db?host=127.0.0.1:1&host=127.0.0.1:2&password=s3cr3t",
        "postgresql://user:s3cr3t@127.0.0.1:1/db?passwrd=s3cr3t",  # libpq knows no such option
        "postgresql://user@127.0.0.1:1/db?keepalives=s3cr3t",  # libpq repeats a bad value
        "postgresql://user@127.0.0.1:1/db?options=-c%20a.b%3Ds3cr3t",
        "postgresql://user:p@s3cr3t@127.0.0.1:1/db",
        "postgresql://user:p/s3cr3t@127.0.0.1:1/db",
        "postgresql://user:p#s3cr3t@127.0.0.1:1/db",
        "postgresql://user:s3cr3t@127.0.0.1:1,127.0.0.1:2/db",
        "postgresql://us:er:s3cr3t@[::1/db",
        "postgresql:/user:s3cr3t@127.0.0.1/db",
        "postgres://user:s3cr3t@127.0.0.1/db",
        "mysql://user:s3cr3t@127.0.0.1/db",
        "host=127.0.0.1 port=1 password=s3cr3t",
        "sqlite:///folder/that/is/not/there/store.db?key=s3cr3t",
    ],
)
@pytest.mark.parametrize("command", [["db", "status"], ["ingest", SAMPLE]])
def test_a_store_that_does_not_answer_keeps_its_secrets(
    on_any: Run, command: list[str], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = on_any(*command, "--store", url)
    if not url.startswith("sqlite") or command[0] == "db":  # one that is not there is made
        assert done.code in (2, 3)
        assert done.err.startswith("thingline: ")
    assert SECRET not in done.err + done.out


def test_a_server_that_refuses_keeps_them_too(on_any: Run, postgres_store_url: str) -> None:
    """A real server answers, and says no: no such database, no such role; or libpq does."""
    url = make_url(postgres_store_url)
    for refused in (
        url.set(database="nothing-here", query={**url.query, "sslpassword": SECRET}),
        url.set(query={**url.query, "user": "nobody-here", "password": SECRET}),
        url.set(
            username="nobody-here", password=SECRET, query={"host": url.query.get("host", url.host or "")}
        ),
        url.set(query={**url.query, "channel_binding": SECRET, "password": SECRET}),
    ):
        done = on_any("db", "status", "--store", refused.render_as_string(hide_password=False))
        assert (done.code, done.out) == (3, ""), refused
        assert "***" in done.err
        assert SECRET not in done.err


def test_a_file_that_is_no_store_is_named_without_them(on_any: Run, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("not a database, though it is long enough to be one" * 20)
    done = on_any("db", "status", "--store", f"sqlite:///{tmp_path}/x.db?key={SECRET}")
    assert done.code == 3
    assert f"sqlite:///{tmp_path}/x.db?key=***" in done.err


def test_a_store_that_answers_is_named_without_them(on_any: Run, postgres_store_url: str) -> None:
    url = make_url(postgres_store_url)
    given = url.set(query={**url.query, "sslpassword": SECRET}).render_as_string(hide_password=False)
    for command in (["ingest", SAMPLE], ["db", "status"], ["db", "upgrade"]):
        done = on_any(*command, "--store", given)
        assert done.code == 0
        assert "***" in done.out + done.err
        assert SECRET not in done.out + done.err


def test_a_url_shows_what_helps_and_hides_what_may_be_a_secret() -> None:
    url = "postgresql://ann:s3cr3t@db.example/things?sslmode=require&host=a&host=b&sslkey=k&whatever=w"
    assert masked(parse_url(url)) == (
        "postgresql+psycopg://ann:***@db.example/things?host=a&host=b&sslkey=***&sslmode=require&whatever=***"
    )


def test_names_and_addresses_are_no_part_of_an_error(store_url: str) -> None:
    """A statement that fails says what failed, and not with which values."""
    open_writer(parse_url(store_url)).close()
    with open_reader(parse_url(store_url)) as store:
        statement = "SELECT * FROM nothing_here WHERE name = ?"
        mark = "?" if store.is_sqlite else "%s"
        with pytest.raises(ThinglineError) as raised, store.reading() as connection:
            connection.exec_driver_sql(statement.replace("?", mark), ("pump-17",))
    assert "nothing_here" in str(raised.value)
    assert "pump-17" not in f"{raised.value} {raised.value.__cause__}"


def test_a_path_may_still_have_any_name_that_is_no_conninfo(tmp_path: Path) -> None:
    for name in ("a=b.db", "user=ann/store.db", "postgres.db", "my passwords.db"):
        assert parse_url(str(tmp_path / name)).database == str(tmp_path / name)
