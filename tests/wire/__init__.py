"""Real payloads by name; README.md beside them says where each comes from."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def wire(name: str) -> bytes:
    """Return the bytes of one payload."""
    return (_FOLDER / name).read_bytes()


def samples() -> dict[str, bytes]:
    """Return the bytes of all of them, by name."""
    files = sorted(path for path in _FOLDER.iterdir() if path.suffix in (".json", ".ndjson"))
    return {path.name: wire(path.name) for path in files}
