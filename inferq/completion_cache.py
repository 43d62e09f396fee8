"""Completions that answer repeated requests: fingerprint and stored form."""

import hashlib
from dataclasses import dataclass
from typing import Final, Self

import orjson

from inferq.requests import GENERATION_FIELDS, GenerationRequest

#: Raise when the meaning of a fingerprint or of a stored completion changes.
VERSION: Final = 1

#: Fields of a request that do not determine the output. A deny-list: a field that is new is part of the fingerprint
#: until somebody decides otherwise, so a forgotten field costs a hit, never a wrong answer.
NOT_DETERMINING: Final[frozenset[str]] = frozenset()

#: The model is named by the caller's arguments: what it resolves to counts, not how the client wrote it.
_DETERMINING: Final = set(GENERATION_FIELDS - NOT_DETERMINING - {"model"})

#: Finish reasons whose text is the model's whole answer to the request.
CACHEABLE: Final = frozenset({"stop", "length"})


def fingerprint(request: GenerationRequest, model: str, revision: str = "") -> str:
    """Return the SHA-256 (64 hex digits) of everything that determines the output.

    Canonical JSON: sorted keys, no white space, every field that reaches the engine with its default filled in, the
    model resolved to its name and revision.
    """
    fields = request.model_dump(mode="json", include=_DETERMINING)
    determining = {"v": VERSION, "model": model, "revision": revision, "request": fields}
    return hashlib.sha256(orjson.dumps(determining, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, kw_only=True)
class CachedCompletion:
    """A completion as the cache keeps it."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    model: str
    #: Milliseconds since 1970 at which it was stored, for ``Age``.
    stored_ms: int

    def to_json(self) -> str:
        """Return the stored form."""
        return orjson.dumps(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the stored form; raises TypeError or ValueError when it is not one."""
        return cls(**orjson.loads(text))
