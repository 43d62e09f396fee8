"""The public keys of an issuer, from where it publishes them (a JWK set, RFC 7517)."""

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog
from jwt import PyJWK, PyJWKClient

log = structlog.get_logger()

#: Seconds a fetch may take, and a caller waits for one.
FETCH_LIMIT: Final = 5.0
#: Seconds between the starts of two fetches, whatever callers send: an unknown key costs the issuer no more than this.
PAUSE: Final = 10.0
#: Seconds after which known keys are fetched again, so that those the issuer has withdrawn are forgotten.
FRESH: Final = 300.0


class KeysUnavailable(Exception):
    """The issuer's keys have never been read."""


class KeySet:
    """An issuer's keys for one algorithm, the last good ones while its address is away.

    Fetched by a thread of its own: whoever has a known key waits for nobody. Safe to use from many threads.
    """

    def __init__(self, url: str, algorithm: str, clock: Callable[[], float] = time.monotonic) -> None:
        # Its own cache asks again for every unknown key while the address is away, with all callers behind one lock.
        self._client = PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_LIMIT)
        self._algorithm = algorithm
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str | None, PyJWK] = {}
        self._fetched = self._tried = float("-inf")
        self._idle = threading.Event()
        self._idle.set()

    def find(self, kid: str | None) -> PyJWK | None:
        """Return the key of that id, or None; raises KeysUnavailable. Waits, within FETCH_LIMIT, only for unknown ids.

        Without an id it is the issuer's key if it has one alone.
        """
        found = self._keys.get(kid)
        if found is None:
            self._fetch_soon()
            self._idle.wait(FETCH_LIMIT)
            if not self._keys:
                raise KeysUnavailable
            return self._keys.get(kid)
        if self._clock() - self._fetched > FRESH:
            self._fetch_soon()
        return found

    def _fetch_soon(self) -> None:
        with self._lock:
            if not self._idle.is_set() or self._clock() - self._tried < PAUSE:
                return
            self._tried = self._clock()
            self._idle.clear()
            threading.Thread(target=self._fetch, name="jwks", daemon=True).start()

    def _fetch(self) -> None:
        try:
            keys = {key.key_id: key for key in self._client.get_jwk_set().keys if self._suits(key)}
            if keys:
                self._keys = keys if len(keys) > 1 else {**keys, None: next(iter(keys.values()))}
                self._fetched = self._clock()
            else:
                log.warning("jwks_has_no_key", algorithm=self._algorithm)
        except Exception as error:  # whatever the address answers, the last good keys stay
            log.warning("jwks_unavailable", reason=type(error).__name__)
        finally:
            self._idle.set()

    def _suits(self, key: PyJWK) -> bool:
        """Whether a key is for signatures by the algorithm, by all that is said of it, and long enough."""
        return (
            key.algorithm_name == self._algorithm
            and key.public_key_use in (None, "sig")
            and key.Algorithm.check_key_length(key.key) is None
        )
