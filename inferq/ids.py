"""Identifiers that sort by the time they were made."""

import secrets
import time
import uuid


def new_id() -> str:
    """Return a UUID version 7 (RFC 9562 §5.7) in its 36-character form: 48 bits of Unix time in ms, 74 random bits."""
    unix_ms = time.time_ns() // 1_000_000
    value = (unix_ms & 0xFFFFFFFFFFFF) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_id(text: str) -> bool:
    """Return whether ``text`` could be an identifier made by :func:`new_id`."""
    try:
        return len(text) == 36 and str(uuid.UUID(text)) == text
    except ValueError:
        return False
