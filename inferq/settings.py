"""The settings of every inferq process. The only module that reads the environment."""

import importlib.util
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from inferq.catalogue import Catalogue, Model
from inferq.errors import ConfigurationError
from inferq.sentinel_url import SCHEME, SentinelUrl
from inferq.webhook_secrets import check_secret

Port = Annotated[int, Field(ge=0, le=65535)]

_SCHEMES = ("redis://", "rediss://", SCHEME)

#: Where containers are given secrets, each in a file that has a setting's name: what the environment does not say.
SECRETS: Final = Path("/run/secrets")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
#: How a JWK set may be fetched: scheme, and whether from this machine.
_JWKS_SCHEMES: Final = (("https", True), ("https", False), ("http", True))


class Settings(BaseSettings):
    """Validated once at start, passed on to whoever needs a value. Named like the environment variables, lower case."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True)

    #: The model that is served, as Hugging Face name or path; the public name is its last path segment. With
    #: ``models``: which of them a worker serves and a request without a model means, by default the first.
    model_name: str = "TheBloke/Mistral-7B-Instruct-v0.2-AWQ"
    #: Several models, as ``name=checkpoint, name=checkpoint, adapter=name+directory``.
    models: str = ""
    #: What becomes of a job for a model without a ready worker: it waits, or is refused.
    without_worker: Literal["queue", "refuse"] = "queue"
    #: Which engine a worker starts.
    engine: Literal["vllm", "simulated"] = "vllm"
    #: Jobs, queue, limits and Celery's bells.
    redis_url: str = "redis://localhost:6379"
    #: Completions; the same server when not given.
    cache_redis_url: str = ""
    #: Seconds a call to Redis may take before the caller is told 503.
    redis_timeout: float = Field(2.0, gt=0, le=60)

    #: Requests a minute per API key, unless the key says otherwise.
    rate_limit: int = Field(100, ge=1, le=1_000_000)
    #: Reads, cancels and lists a minute per API key.
    poll_rate_limit: int = Field(6000, ge=1, le=10_000_000)
    #: Tokens a minute per API key: prompt (estimated) and max_tokens when a job is accepted, what was used when it has
    #: ended; 0 for no limit.
    token_rate_limit: int = Field(1_000_000, ge=0, le=1_000_000_000)
    #: Jobs in flight per API key; 0 for no limit.
    max_jobs_in_flight: int = Field(10_000, ge=0, le=100_000_000)
    #: Seconds a completion stays in the cache.
    cache_ttl: int = Field(3600, ge=1, le=31_536_000)
    #: Which requests are answered from the cache: every identical one, only deterministic ones, none.
    cache_policy: Literal["all", "deterministic", "off"] = "all"
    #: Who shares cached completions.
    cache_scope: Literal["tenant", "shared"] = "tenant"
    #: Runs that may wait for one engine.
    max_queue_depth: int = Field(100_000, ge=1)
    #: Tokens (reserved: estimated prompt and max_tokens) that may wait for one engine.
    max_queued_tokens: int = Field(100_000_000, ge=1)
    #: Seconds a finished job can be read.
    result_ttl: int = Field(86_400, ge=1, le=2_592_000)
    #: Long-polls, event streams and WebSockets one API process holds open. Further long-polls are answered
    #: at once, the others refused.
    max_waiters: int = Field(2000, ge=1, le=100_000)
    #: Seconds without an event after which a follower of a job is sent a sign of life. Clients take 45 s of silence for
    #: a lost connection.
    stream_heartbeat: float = Field(15.0, gt=0, le=30)

    #: Share of the GPU's memory vLLM may take.
    gpu_memory_util: float = Field(0.85, gt=0, le=1)
    #: GiB of main memory for the KV cache of an engine without a GPU.
    cpu_kv_cache_gib: float = Field(1.0, gt=0, le=1024)
    #: Longest prompt plus answer, in tokens.
    max_model_len: int = Field(4096, ge=16)
    #: Sequences the engine decodes together.
    max_num_seqs: int = Field(16, ge=1, le=4096)
    #: Seconds a stopping worker lets running jobs finish before it hands them back.
    drain_grace: float = Field(30.0, ge=0, le=3600)
    #: Seconds without a sign of life after which a run is taken from its worker.
    lease: float = Field(12.0, ge=1, le=600)
    #: Seconds without a token, while runs are in the engine, after which it counts as hung and the worker ends.
    engine_hang: float = Field(120.0, ge=1, le=3600)
    #: Timing model of the simulated engine: constant, t4-mistral-7b-awq, or the path of a calibration (.json).
    simulated_timing: str = "constant"
    #: Seconds of one step of the constant timing model.
    simulated_step: float = Field(0.01, ge=0, le=10)

    #: Whether webhooks may go to http:// addresses.
    webhook_allow_http: bool = False
    #: Ports webhooks may go to, besides 80 where http is allowed.
    webhook_ports: str = "443"
    #: Hosts, by name or address, that webhooks may go to whatever they are: private, http, any port. For development.
    webhook_allowed_hosts: str = ""
    #: Seconds an attempt at a delivery may take, from connecting to the last byte of the answer.
    webhook_timeout: float = Field(15.0, gt=0, le=60)
    #: Seconds to wait after each failed attempt; after one more failure the delivery is a dead letter.
    webhook_retries: str = "5,300,1800,7200,18000,36000,50400,72000,86400"
    #: Deliveries one keeper sends at once to receivers whose last answer was good, and as many more to all others.
    webhook_concurrency: int = Field(256, ge=1, le=10_000)
    #: A signing secret that the bootstrap key's tenant has from the start, in the form whsec_<base64>.
    bootstrap_webhook_secret: SecretStr | None = None

    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    #: Processes of the API on this machine.
    api_processes: int = Field(1, ge=1, le=256)
    #: Flower's own /metrics and /healthcheck ask for no password: keep this on loopback, or behind a proxy.
    flower_host: str = "127.0.0.1"
    flower_port: Port = 5555
    flower_user: str = Field("admin", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    #: Without one Flower does not start.
    flower_password: SecretStr | None = None
    #: The file in which Flower keeps what it has seen.
    flower_db: str = "flower"
    #: Where workers and keepers offer their metrics; 0 for any free port.
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 9101
    keeper_metrics_port: Port = 9102
    #: What Prometheus must show as a bearer token. Without one the API shows its metrics to nobody, workers and keepers
    #: to everybody who reaches their ports.
    metrics_token: SecretStr | None = None
    #: Where ``make up`` starts a Prometheus if there is one; 0 for none.
    prometheus_port: Port = 9090
    #: A key made at start for development, in the form iq_<id>_<secret>.
    bootstrap_api_key: SecretStr | None = None
    #: How bearer tokens (JWT) are signed; None: only API keys are taken. Never what a token says of itself.
    jwt_algorithm: Literal["HS256", "RS256", "ES256"] | None = None
    #: The shared secret of HS256.
    jwt_secret: SecretStr | None = None
    #: A file with the issuer's public key (PEM), for RS256 and ES256.
    jwt_key_file: str = ""
    #: Or where the issuer publishes its public keys (a JWK set, RFC 7517).
    jwt_jwks_url: str = ""
    #: What a token's ``iss`` and ``aud`` must be.
    jwt_issuer: str = ""
    jwt_audience: str = ""
    #: Seconds by which the issuer's clock may differ from ours.
    jwt_leeway: float = Field(30.0, ge=0, le=300)
    #: The claims that name the tenant, and tighten its limits.
    jwt_tenant_claim: str = Field("tenant", min_length=1)
    jwt_limits_claim: str = Field("limits", min_length=1)
    #: How log lines look, and from which level on they are written: each request and attempt is one at info.
    log_format: Literal["console", "json"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    #: Whether spans are sent to a collector, by OTLP over HTTP; where to is said by OpenTelemetry's own variables.
    tracing: Literal["off", "otlp"] = "off"

    @field_validator("models")
    @classmethod
    def _models(cls, value: str) -> str:
        if value:
            Catalogue.parse(value)
        return value

    @field_validator("redis_url", "cache_redis_url")
    @classmethod
    def _redis_scheme(cls, value: str) -> str:
        if value and not value.startswith(_SCHEMES):
            raise ValueError("must start with redis://, rediss:// or sentinel://")
        SentinelUrl.parse(value)
        return value

    @field_validator("bootstrap_api_key")
    @classmethod
    def _key_form(cls, value: SecretStr | None) -> SecretStr | None:
        parts = value.get_secret_value().split("_", 2) if value else []
        if value and (len(parts) != 3 or parts[0] != "iq" or not parts[1].isalnum() or len(parts[2]) < 8):
            raise ValueError("must look like iq_<id>_<secret>, with a secret of 8 characters or more")
        return value

    @field_validator("metrics_token")
    @classmethod
    def _token_form(cls, value: SecretStr | None) -> SecretStr | None:
        token = value.get_secret_value() if value else ""
        if value and (
            len(token) < 16 or not token.isascii() or any(not one.isprintable() or one == " " for one in token)
        ):
            raise ValueError("must be 16 or more printable ASCII characters without spaces")
        return value

    @field_validator("tracing")
    @classmethod
    def _installed(cls, value: str) -> str:
        names = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
        if value == "otlp" and not all(_is_installed(name) for name in names):
            raise ValueError("otlp needs `pip install -r requirements-tracing.txt`")
        return value

    @field_validator("webhook_ports")
    @classmethod
    def _ports(cls, value: str) -> str:
        if not all(part.isascii() and part.isdigit() and 0 < int(part) < 65536 for part in _listed(value)):
            raise ValueError("must be ports with commas between, as 443,8443")
        return value

    @field_validator("webhook_retries")
    @classmethod
    def _waits(cls, value: str) -> str:
        try:
            waits = [float(part) for part in _listed(value)]
        except ValueError:
            waits = [-1.0]
        if not all(0 <= wait <= 604_800 for wait in waits):
            raise ValueError("must be seconds, a week at most, with commas between, as 5,300,1800")
        return value

    @field_validator("webhook_allowed_hosts")
    @classmethod
    def _hosts(cls, value: str) -> str:
        if any("/" in part or "@" in part or "*" in part for part in _listed(value)):
            raise ValueError("must be host names or addresses with commas between, without scheme and port")
        return value

    @field_validator("bootstrap_webhook_secret")
    @classmethod
    def _secret_form(cls, value: SecretStr | None) -> SecretStr | None:
        if value:
            check_secret(value.get_secret_value())
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _secret_length(cls, value: SecretStr | None) -> SecretStr | None:
        if value and len(value.get_secret_value().encode()) < 32:
            raise ValueError("must have 32 bytes or more (RFC 7518 §3.2), as from `openssl rand -hex 32`")
        return value

    @field_validator("jwt_jwks_url")
    @classmethod
    def _trusted_url(cls, value: str) -> str:
        # Who can change the answer on its way can make tokens of any tenant.
        read = urlsplit(value)
        if value and (not read.hostname or (read.scheme, read.hostname in _LOOPBACK) not in _JWKS_SCHEMES):
            raise ValueError("must begin with https:// (http:// from this machine alone)")
        return value

    @model_validator(mode="after")
    def _tokens_whole(self) -> Self:
        keys = {"JWT_SECRET": self.jwt_secret, "JWT_KEY_FILE": self.jwt_key_file, "JWT_JWKS_URL": self.jwt_jwks_url}
        names = {"JWT_ISSUER": self.jwt_issuer, "JWT_AUDIENCE": self.jwt_audience}
        given = [name for name, value in (keys | names).items() if value]
        if self.jwt_algorithm is None:
            if given:
                raise ValueError(f"JWT_ALGORITHM: must be HS256, RS256 or ES256 when {given[0]} is given")
            return self
        allowed = ["JWT_SECRET"] if self.jwt_algorithm == "HS256" else ["JWT_KEY_FILE", "JWT_JWKS_URL"]
        for name in keys:
            if name in given and name not in allowed:
                raise ValueError(
                    f"{name}: does not go with JWT_ALGORITHM={self.jwt_algorithm}, which takes {' or '.join(allowed)}"
                )
        if len([name for name in allowed if name in given]) != 1:
            one = "one of " if len(allowed) > 1 else ""
            raise ValueError(f"{allowed[0]}: JWT_ALGORITHM={self.jwt_algorithm} takes {one}{' and '.join(allowed)}")
        for name in names:
            if name not in given:
                raise ValueError(f"{name}: must be given with JWT_ALGORITHM, or tokens made for others would be taken")
        if self.jwt_tenant_claim == self.jwt_limits_claim:
            raise ValueError("JWT_LIMITS_CLAIM: must be another claim than JWT_TENANT_CLAIM")
        return self

    @model_validator(mode="before")
    @classmethod
    def _one_redis_by_default(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("cache_redis_url"):
            values["cache_redis_url"] = values.get("redis_url") or "redis://localhost:6379"
        return values

    @model_validator(mode="after")
    def _one_of_the_models(self) -> Self:
        if "model_name" in self.model_fields_set and self.catalogue.base(self.model_name) is None:
            bases = ", ".join(one.name for one in self.catalogue if not one.adapter)
            raise PydanticCustomError(
                "model_name", "MODEL_NAME: must be one of {bases}, as MODELS says", {"bases": bases}
            )
        return self

    @property
    def catalogue(self) -> Catalogue:
        """The models that are served."""
        return Catalogue.parse(self.models) if self.models else Catalogue.of_one(self.model_name)

    @property
    def served(self) -> Model:
        """The model that a worker serves, and that a request means which names none."""
        models = self.catalogue
        return models.base(self.model_name) or models[0]

    @property
    def public_model(self) -> str:
        """Its name in the HTTP API."""
        return self.served.name

    @property
    def engine_queue(self) -> str:
        """The name that its engine's queue has in Redis and Celery."""
        return self.served.engine

    @property
    def webhook_open_hosts(self) -> frozenset[str]:
        """The hosts of ``WEBHOOK_ALLOWED_HOSTS``, in lower case and without brackets."""
        return frozenset(part.lower().strip("[]") for part in _listed(self.webhook_allowed_hosts))

    @property
    def webhook_port_list(self) -> frozenset[int]:
        """The ports of ``WEBHOOK_PORTS``."""
        return frozenset(int(part) for part in _listed(self.webhook_ports))

    @property
    def webhook_waits_s(self) -> tuple[float, ...]:
        """The seconds of ``WEBHOOK_RETRIES``."""
        return tuple(float(part) for part in _listed(self.webhook_retries))

    @property
    def separate_cache(self) -> bool:
        """Whether completions live on another server than jobs."""
        return self.cache_redis_url != self.redis_url


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def load_settings(**overrides: Any) -> Settings:
    """Read and validate the environment; raises ConfigurationError with one sentence per wrong setting."""
    secrets = SECRETS if SECRETS.is_dir() else None  # told of a directory that is not there, pydantic warns
    try:
        return Settings(_secrets_dir=secrets, **overrides)
    except ValidationError as error:
        wrong = [
            # What is wrong with several together names them itself.
            ": ".join([str(part).upper() for part in item["loc"][:1]] + [item["msg"].removeprefix("Value error, ")])
            for item in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigurationError("wrong setting: " + "; ".join(wrong)) from None


def environment_for(settings: Settings) -> dict[str, str]:
    """Return the environment of a child process that is to see the very same settings."""
    own = {
        name.upper(): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in settings
        if value is not None
    }
    return {**os.environ, **own}
