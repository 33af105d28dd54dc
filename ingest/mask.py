"""Addresses and principals in text: where they are, whoever wrote the text, and text without them.

Owns the patterns: what looks like an IP address or a certificate id, and which JSON members bear either under
which names. It must never look at a name of a thing or client.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address

from ingest.inflate import MAGIC
from ingest.refusal import is_binary

IP = "ip"
PRINCIPAL = "principal"

Substitute = Callable[[str], str | None]  # what stands for a text; None: nothing may

REDACTED = "redacted"  # stands in text for what was dropped

# By name without `_`, `-` and case: rules rename members, and their functions are sourceip() and principal().
BEARERS: dict[str, str] = {
    **dict.fromkeys(("ip", "ipaddress", "ipaddr", "clientip", "remoteip", "remoteaddress"), IP),
    **dict.fromkeys(("sourceip", "sourceipaddress", "sourceport", "targetip", "vpcendpointid"), IP),
    **dict.fromkeys(("principal", "principalid", "principalidentifier", "principalarn"), PRINCIPAL),
    **dict.fromkeys(("certificateid", "certificatearn", "certificatepem"), PRINCIPAL),
}

_ADDRESS = re.compile(
    r"(?<![0-9])(?<![0-9]\.)(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9]|\.[0-9])"
    r"|(?:(?<![0-9A-Za-z:])|(?<=[A-Za-z]:))"
    r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:(?:\.[0-9]{1,3}){3})?(?![0-9A-Za-z:])"
)
_ENDS = ((0, 0), (0, 1), (1, 0), (1, 1))
_CERTIFICATE = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{64}(?![0-9A-Za-z])")

# A bearing member at any depth of JSON inside JSON (its quotes have as many backslashes before them), its value
# perhaps cut off. Every repeat is bounded or cannot fail after it, so that no text takes more than linear time.
_MEMBER = re.compile(
    r'(?P<quote>\\{0,15}")(?P<name>'
    + "|".join("[_-]?".join(name) for name in sorted(BEARERS, key=len, reverse=True))
    + r")(?P=quote)(?P<between>\s{0,99}:\s{0,99})"
    r"(?:(?P=quote)(?P<text>.*?)(?:(?P=quote)|\Z)|(?P<number>[0-9]+))",
    re.DOTALL | re.IGNORECASE,
)
# Base64 that is long enough to hold something, lines of it joined.
_BASE64 = re.compile(
    r"[A-Za-z0-9+/_-]{16,}={0,2}(?:(?<=[A-Za-z0-9+/_-]{60})(?:\\[rn]|[\r\n])+[A-Za-z0-9+/_-]+={0,2})*"
)
_BREAKS = re.compile(r"\\[rn]|[\r\n=]")
_CUT = re.compile(r"[0-9A-Fa-f.:]{2,}\Z")
_ENVELOPES = 4


def bearer_of(name: str) -> str | None:
    """Tell which of IP and PRINCIPAL a member of that name bears, if either."""
    return BEARERS.get(name.replace("_", "").replace("-", "").lower())


def without_addresses(text: str, substitute: Substitute) -> str:
    """Replace what reads as an IP address (a version of four numbers does, too)."""

    def replace(match: re.Match[str]) -> str:
        found = match[0]
        for first, last in _ENDS:  # a colon before or after it may be the text's
            address = found[first : len(found) - last]
            if (
                found[:first] in ("", ":")
                and found[len(found) - last :] in ("", ":")
                and _is_address(address)
            ):
                return f"{found[:first]}{substitute(address) or REDACTED}{found[len(found) - last :]}"
        return found

    return _ADDRESS.sub(replace, text)


def _is_address(text: str) -> bool:
    if ":" not in text:  # with leading zeros, too
        parts = text.split(".")
        return len(parts) == 4 and all(part.isdecimal() and int(part) <= 255 for part in parts)
    try:
        return not ip_address(text).is_unspecified  # which is nobody's
    except ValueError:
        return False


def without_certificates(text: str, substitute: Substitute) -> str:
    """Replace what reads as the id of a certificate: 64 hex digits."""
    return _CERTIFICATE.sub(lambda match: substitute(match[0]) or REDACTED, text)


def masked_text(text: str, substitutes: Mapping[str, Substitute]) -> str:
    """Replace addresses and certificate ids in any text, as `substitutes` has it for IP and PRINCIPAL."""
    if IP in substitutes:
        text = without_addresses(text, substitutes[IP])
    if PRINCIPAL in substitutes:
        text = without_certificates(text, substitutes[PRINCIPAL])
    return text


def masked_head(head: bytes, substitutes: Mapping[str, Substitute], *, cut: bool) -> bytes:
    """Give the head of something unreadable without the addresses and principals that can be found in it.

    They are found as JSON members, as text that reads as one, and inside base64. Nothing is left of binary
    data and gzip, in which nothing can be found. `cut`: the head is not the whole.
    """
    return _masked(head, substitutes, cut=cut, envelopes=0) or b""


def _masked(raw: bytes, substitutes: Mapping[str, Substitute], *, cut: bool, envelopes: int) -> bytes | None:
    """Mask bytes; None where they are not text."""
    if is_binary(raw, whole=False):
        return None
    text = raw.decode("utf-8", "surrogateescape")  # its last character may be cut in two
    if cut and IP in substitutes:
        text = _CUT.sub("", text)  # perhaps half an address

    def member(match: re.Match[str]) -> str:
        substitute = substitutes.get(bearer_of(match["name"]) or "")
        if substitute is None:
            return match[0]
        value, quote = match["text"] if match["number"] is None else match["number"], match["quote"]
        instead = substitute(value) if value else value
        if instead is None and match["number"] is not None:
            return f"{quote}{match['name']}{quote}{match['between']}null"
        return f"{quote}{match['name']}{quote}{match['between']}{quote}{instead or ''}{quote}"

    def enclosed(match: re.Match[str]) -> str:
        packed = _BREAKS.sub("", match[0]).translate({45: 43, 95: 47})
        packed = packed[: len(packed) - (len(packed) % 4 == 1)]  # where it was cut
        try:
            inner = base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
        except (binascii.Error, ValueError):
            return match[0]
        if inner.startswith(MAGIC) or envelopes >= _ENVELOPES:
            return REDACTED
        inner_cut = cut and match.end() == len(match.string)
        found = _masked(inner, substitutes, cut=inner_cut, envelopes=envelopes + 1)
        if found is None:  # most likely an id; but it may be text in another encoding
            foreign = inner.replace(b"\0", b"").decode("latin-1")
            return match[0] if masked(foreign) == foreign else REDACTED
        return match[0] if found == inner else base64.b64encode(found).decode("ascii")

    def masked(text: str) -> str:
        return masked_text(_MEMBER.sub(member, text), substitutes)

    return masked(_BASE64.sub(enclosed, _MEMBER.sub(member, text))).encode("utf-8", "surrogateescape")
