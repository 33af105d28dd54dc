"""Who may ask, request by request: a signature or a token where there are credentials, else loopback alone.

A browser is no caller here: what bears a foreign Origin, or says that it comes from another site, is refused, and no
answer ever allows one. Without credentials the Host must be loopback too, so that no rebound name reaches the history,
and no proxy may stand in between, which lets in whoever reaches it.
"""

from __future__ import annotations

import hmac
import ipaddress

from queries.http.credentials import Credentials, digest
from queries.http.messages import Refusal, Request
from queries.http.sigv4 import verified_key
from store.clock import Clock

MOST_HOSTS = 100  # remembered
# What proxies add; nginx adds none of itself, and names its upstream in Host.
_PROXIED = frozenset(
    (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip")
)
_CHALLENGE = ((b"www-authenticate", b"Bearer"),)


def is_loopback(host: str) -> bool:
    """Tell whether a host of a URL, without its port, is this machine by itself."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def host_of(authority: str) -> str:
    """Cut the port off `host:port`; an IPv6 address stands in brackets."""
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    return authority.partition(":")[0]


def _check_browser(request: Request) -> None:
    host = request.header("host") or ""
    is_own = all(origin in (f"http://{host}", f"https://{host}") for origin in request.all_of("origin"))
    if not is_own or set(request.all_of("sec-fetch-site")) & {"cross-site", "same-site"}:
        raise Refusal(403, "ForbiddenException", "Pages of other origins may not ask.")


class Gate:
    """Lets requests in, by the credentials that there are. `region` is that of signatures."""

    def __init__(self, credentials: Credentials, *, region: str | None, clock: Clock) -> None:
        self._credentials = credentials
        self._region = region or ""
        self._clock = clock
        self._hosts: set[bytes] = set()  # loopback, as they were written

    def admit(self, request: Request) -> str:
        """Give the caller's name: a key id, a token's name, or the address. Raises Refusal."""
        caller = self.caller_of(request)
        if caller is not None:
            return caller
        return verified_key(request, self._credentials.secrets, region=self._region, now_ms=self._clock())

    def caller_of(self, request: Request) -> str | None:
        """Give the caller's name where it takes no body to tell; None: the signature tells. Raises Refusal."""
        named = request.named
        if len(named) != len(request.headers):
            request.header("host")
        if b"origin" in named or b"sec-fetch-site" in named:
            _check_browser(request)
        if self._credentials:
            return self._bearer_of(request)
        host = named.get(b"host", b"")
        if host not in self._hosts:
            self._check_host(host)
        if not _PROXIED.isdisjoint(named):
            raise Refusal(
                403,
                "ForbiddenException",
                "Without credentials this server answers this machine alone; behind a proxy give it --credentials.",
            )
        return request.peer

    def _check_host(self, host: bytes) -> None:
        if not is_loopback(host_of(host.decode("latin-1"))):
            raise Refusal(
                403,
                "ForbiddenException",
                "Without credentials this server answers to localhost only; call it by that name.",
            )
        if len(self._hosts) < MOST_HOSTS:
            self._hosts.add(host)

    def _bearer_of(self, request: Request) -> str | None:
        told = request.all_of("authorization")
        if "x-amz-signature" in request.query.lower():
            raise Refusal(
                403, "IncompleteSignatureException", "A signature belongs into the Authorization header."
            )
        if not told:
            raise Refusal(
                403 if self._credentials.secrets else 401,
                "MissingAuthenticationTokenException",
                "Missing Authentication Token: sign the request, or bring a bearer token.",
                _CHALLENGE,
            )
        if len(told) > 1:
            raise Refusal(403, "IncompleteSignatureException", "There is more than one Authorization header.")
        scheme, _, token = told[0].partition(" ")
        if scheme.lower() == "bearer":
            return self._bearer(token.strip())
        return None

    def _bearer(self, token: str) -> str:
        told, found = digest(token), None
        for name, kept in self._credentials.tokens.items():  # all of them, whichever it is
            if hmac.compare_digest(told, kept):
                found = name
        if found is None:
            raise Refusal(
                401, "UnauthorizedException", "That token is none of those that may ask.", _CHALLENGE
            )
        return found
