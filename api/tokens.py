"""Bearer tokens (JWT, RFC 7519) of an issuer that the operator trusts.

By RFC 8725: the algorithm is the operator's choice and never the token's, a key belongs to one algorithm, issuer and
audience are checked, a token ends.

``python -m api.tokens`` asks whether the settings can be used, for a process that cannot ask itself: status 1 and a
sentence when they cannot.
"""

import hashlib
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidTokenError,
    MissingRequiredClaimError,
    PyJWK,
    PyJWT,
    PyJWTError,
    get_unverified_header,
)
from pydantic import Field, ValidationError

from api.errors import KEYS_RETRY_AFTER, Problem, unauthorized
from api.jwks import KeySet, KeysUnavailable
from inferq.credentials import KeyLimits, Subject
from inferq.errors import BadTenant, ConfigurationError, InferqError
from inferq.requests import Strict
from inferq.settings import Settings, load_settings
from inferq.tenants import Priority, checked_name

#: Bits an RSA key has at least (RFC 7518 §3.3).
_RSA_BITS: Final = 2048
#: What is wrong with a token, as the end of a sentence about it; the first that fits.
_WRONG: Final[tuple[tuple[type[Exception], str], ...]] = (
    (ExpiredSignatureError, "has expired"),
    (ImmatureSignatureError, "is not valid yet"),
    (InvalidAudienceError, "is for another audience"),
    (InvalidIssuerError, "is from another issuer"),
)

Limit = Annotated[int, Field(ge=1, le=2**53)]


class LimitClaims(Strict):
    """What the claim of limits may hold."""

    requests: Limit | None = None
    polls: Limit | None = None
    tokens: Limit | None = None
    jobs: Limit | None = None
    max_priority: Priority | None = None


class TokenVerifier:
    """Says whom a token names. Asks nobody, except for keys it does not know."""

    def __init__(self, settings: Settings) -> None:
        """Raise ConfigurationError for a key file that cannot be used."""
        self._settings = settings
        self._algorithm = str(settings.jwt_algorithm)
        self._jwt = PyJWT(options={"enforce_minimum_key_length": True})
        self._keys = KeySet(settings.jwt_jwks_url, self._algorithm) if settings.jwt_jwks_url else None
        self._key: Any = None
        if settings.jwt_secret:
            self._key = settings.jwt_secret.get_secret_value()
        elif settings.jwt_key_file:
            self._key = _public_key(settings.jwt_key_file, self._algorithm)

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return the verifier that the settings ask for; None when they want no tokens. Raises ConfigurationError."""
        return cls(settings) if settings.jwt_algorithm else None

    def verify(self, token: str) -> Subject:
        """Return whom a token names; raises Problem 401 that says what is wrong with it, or 503 without any keys."""
        try:
            claims = self._jwt.decode(
                token,
                self._key_of(token),
                algorithms=[self._algorithm],
                issuer=self._settings.jwt_issuer,
                audience=self._settings.jwt_audience,
                leeway=self._settings.jwt_leeway,
                options={"require": ["exp", "iss", "aud", "sub", self._settings.jwt_tenant_claim]},
            )
            return self._subject(claims)
        except MissingRequiredClaimError as error:
            raise refused(f"lacks the claim {error.claim}") from None
        except InvalidTokenError as error:
            raise refused(next((said for kind, said in _WRONG if isinstance(error, kind)), "is not genuine")) from None
        except (PyJWTError, ValueError, TypeError, RecursionError, OverflowError):
            # A header is read before anything is verified: whatever was made up must not be an error of ours.
            raise refused("is not genuine") from None

    def _key_of(self, token: str) -> Any:
        if self._keys is None:
            return self._key
        try:
            key: PyJWK | None = self._keys.find(get_unverified_header(token).get("kid"))
        except KeysUnavailable:
            raise Problem(
                503,
                "keys-unavailable",
                f"The keys of the tokens' issuer cannot be read now. Try again in {KEYS_RETRY_AFTER} s.",
                headers={"Retry-After": str(KEYS_RETRY_AFTER)},
            ) from None
        if key is None:
            raise refused("is signed with a key its issuer does not publish")
        return key

    def _subject(self, claims: dict[str, Any]) -> Subject:
        name, limits_name = self._settings.jwt_tenant_claim, self._settings.jwt_limits_claim
        tenant, subject = claims[name], claims["sub"]
        try:
            checked_name(tenant if isinstance(tenant, str) else "")
        except BadTenant as error:
            raise refused(f"has a wrong claim {name}: {str(error).rstrip('.').lower()}") from None
        try:
            limits = LimitClaims.model_validate({} if claims.get(limits_name) is None else claims[limits_name])
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join([limits_name, *(str(part)[:50] for part in first["loc"])])
            # A limit that is misspelt must not be a limit that is ignored.
            raise refused(f"has a wrong claim {where!a}: {first['msg'].lower()}") from None
        # Windows of two tenants are apart although their subjects may have one name; who it is stays out of Redis.
        digest = hashlib.sha256(f"{tenant} {subject}".encode()).hexdigest()[:32]
        return Subject(
            tenant=tenant,
            window=f"sub.{digest}",
            limits=KeyLimits(**limits.model_dump()),
            until=int(claims["exp"]) + self._settings.jwt_leeway,
        )


def refused(what: str) -> Problem:
    """Return Problem 401 about a token (RFC 6750 §3)."""
    return unauthorized(f"The bearer token {what}.", error="invalid_token")


def _public_key(path: str, algorithm: str) -> RSAPublicKey | EllipticCurvePublicKey:
    wanted = {"RS256": f"an RSA key of {_RSA_BITS} bits or more", "ES256": "a P-256 key"}[algorithm]
    try:
        pem = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"wrong setting: JWT_KEY_FILE: cannot be read: {error.strerror}") from None
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"wrong setting: JWT_KEY_FILE: must be the issuer's public key, {wanted}, in PEM (BEGIN PUBLIC KEY)"
        ) from None
    if isinstance(key, RSAPublicKey) and algorithm == "RS256" and key.key_size >= _RSA_BITS:
        return key
    if isinstance(key, EllipticCurvePublicKey) and algorithm == "ES256" and isinstance(key.curve, SECP256R1):
        return key
    raise ConfigurationError(f"wrong setting: JWT_KEY_FILE: must be {wanted} for JWT_ALGORITHM={algorithm}")


if __name__ == "__main__":
    try:
        TokenVerifier.of(load_settings())
    except InferqError as error:
        sys.exit(f"inferq api: {error}")
