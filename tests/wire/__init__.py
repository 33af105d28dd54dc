"""Real payloads by name; README.md beside them says where each comes from."""

from pathlib import Path


def wire(name: str) -> bytes:
    """Return the bytes of one payload."""
    return (Path(__file__).parent / name).read_bytes()
