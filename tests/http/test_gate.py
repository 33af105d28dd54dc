"""Who is let in: tokens, loopback and browsers; and where credentials come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from queries.http.auth import Gate
from queries.http.credentials import Credentials, digest, read_credentials
from queries.http.messages import Refusal, Request
from store.clock import system_clock
from store.errors import UsageError
from tests import processes
from tests.http.answers import SECRET_KEYS, TOKEN

OPEN = Credentials()
CLOSED = Credentials(tokens={"grafana": digest(TOKEN), "other": digest(TOKEN[::-1])})


def admit(credentials: Credentials, *headers: tuple[str, str]) -> str:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    told = Request("POST", "/things/a/connectivity-data", "", raw, dict(raw), b"", "127.0.0.1")
    return Gate(credentials, region=None, clock=system_clock).admit(told)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "LOCALHOST", "127.0.0.1:1", "127.1.2.3", "[::1]:80"]
)
def test_loopback_needs_no_credentials(host: str) -> None:
    assert admit(OPEN, ("host", host)) == "127.0.0.1"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "[::2]",
        "0",
        "::1]",
    ],
)
def test_a_name_that_is_not_loopback_is_a_rebound_one(host: str) -> None:
    with pytest.raises(Refusal, match="localhost only"):
        admit(OPEN, ("host", host))


@pytest.mark.parametrize(
    "header",
    [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost:3000"),
        ("origin", "http://localhost:8080.evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ],
)
@pytest.mark.parametrize("credentials", [OPEN, CLOSED], ids=["open", "closed"])
def test_a_page_of_another_origin_is_refused(header: tuple[str, str], credentials: Credentials) -> None:
    with pytest.raises(Refusal, match="other origins"):
        admit(credentials, ("host", "localhost:8080"), ("authorization", f"Bearer {TOKEN}"), header)


@pytest.mark.parametrize("name", ["x-forwarded-for", "x-forwarded-proto", "x-real-ip", "forwarded", "via"])
def test_what_a_proxy_passes_on_is_not_from_this_machine(name: str) -> None:
    with pytest.raises(Refusal, match="behind a proxy"):
        admit(OPEN, ("host", "localhost:8080"), (name, "127.0.0.1"))
    assert (
        admit(CLOSED, ("host", "a"), (name, "127.0.0.1"), ("authorization", f"Bearer {TOKEN}")) == "grafana"
    )


def test_a_page_of_its_own_is_let_in() -> None:
    own = (("host", "localhost:8080"), ("origin", "http://localhost:8080"), ("sec-fetch-site", "same-origin"))
    assert admit(OPEN, *own) == "127.0.0.1"


def test_a_token_is_known_by_its_name() -> None:
    assert admit(CLOSED, ("host", "a"), ("authorization", f"Bearer {TOKEN}")) == "grafana"
    assert admit(CLOSED, ("host", "a"), ("authorization", f"bearer  {TOKEN[::-1]}")) == "other"


@pytest.mark.parametrize(
    "told", ["", "Bearer", "Bearer ", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", TOKEN, "Basic x"]
)
def test_no_other_token_is_let_in(told: str) -> None:
    with pytest.raises(Refusal) as refused:
        admit(CLOSED, ("host", "localhost"), ("authorization", told))
    assert refused.value.status in (401, 403)


def test_loopback_is_asked_for_credentials_where_there_are_any() -> None:
    with pytest.raises(Refusal, match="Missing Authentication Token"):
        admit(CLOSED, ("host", "localhost"))


# --- Where credentials come from ----------------------------------------------------------------------------


def test_a_private_file_and_the_environment_are_read_together(tmp_path: Path) -> None:
    file = tmp_path / "credentials.toml"
    file.write_text(f'[keys]\n{SECRET_KEYS[0]} = "{SECRET_KEYS[1]}"\n[tokens]\ngrafana = "{TOKEN}"\n')
    file.chmod(0o600)
    found = read_credentials(file, {"THINGLINE_SERVE_TOKENS": f" other:{TOKEN[::-1]} "})
    assert found == Credentials(
        secrets=dict([SECRET_KEYS]), tokens={"grafana": digest(TOKEN), "other": digest(TOKEN[::-1])}
    )
    assert SECRET_KEYS[1] not in repr(found)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("", 0o644, "chmod 600"),
        ("", 0o620, "chmod 600"),
        (f'[keys]\na = "{TOKEN}', 0o600, "is no TOML"),
        (f'[secrets]\na = "{TOKEN}"', 0o600, "may have"),
        (f'keys = "{TOKEN}"', 0o600, "must be a table"),
        ("", 0o600, "holds no credentials"),
        ("[keys]\n[tokens]\n", 0o600, "holds no credentials"),
        ('[tokens]\na = "short"', 0o600, "20 or more"),
        ("[tokens]\na = 12345678901234567890123", 0o600, "20 or more"),
        (f'[tokens]\n"a b" = "{TOKEN}"', 0o600, "is no name"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused(tmp_path: Path, text: str, mode: int, said: str) -> None:
    file = tmp_path / "credentials.toml"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(UsageError, match=said) as refused:
        read_credentials(file, {})
    assert TOKEN not in str(refused.value)


def test_an_environment_that_is_not_understood_is_refused_without_its_secrets() -> None:
    with pytest.raises(UsageError, match="entry 1 is not NAME:SECRET") as refused:
        read_credentials(None, {"THINGLINE_SERVE_TOKENS": TOKEN})
    assert TOKEN not in str(refused.value)


# --- The command --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "environment", "said"),
    [
        (("--host", "0.0.0.0"), {}, "is not loopback, and there are no credentials"),
        (("--host", "::"), {}, "is not loopback, and there are no credentials"),
        (("--host", "192.0.2.1"), {}, "cannot be listened at"),
        ((), {"THINGLINE_SERVE_KEY_PAIRS": ":".join(SECRET_KEYS)}, "Signatures are made for a Region"),
        (("--credentials", "nowhere.toml"), {}, "nowhere.toml cannot be read"),
    ],
)
def test_a_server_that_everybody_could_ask_does_not_start(
    args: tuple[str, ...],
    environment: dict[str, str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes.here("serve", "--port", "0", "--store", str(tmp_path / "none.db"), *args) == 2
    assert said in capsys.readouterr().err


def test_a_store_that_is_not_there_is_told_before_anybody_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert processes.here("serve", "--port", "0", "--store", str(tmp_path / "none.db")) == 3
    assert "There is no store" in capsys.readouterr().err
