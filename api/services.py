"""What views need, made once per process and handed to them by the application."""

from dataclasses import dataclass

from flask import Flask, current_app
from redis import Redis

from api.metrics import ApiMetrics
from api.streams import Streams
from api.tokens import TokenVerifier
from api.waiters import Waiters
from inferq.catalogue import Catalogue, Model
from inferq.credentials import KeyRing
from inferq.event_streams import EventStreams
from inferq.job_store import JobStore, ServiceLimits
from inferq.queue import Bells, Ringer, make_celery
from inferq.redis_client import cache_redis, job_redis
from inferq.scripts import Scripts
from inferq.settings import Settings
from inferq.tracing import Tracer
from inferq.webhooks import AddressRules


@dataclass(frozen=True, kw_only=True)
class Services:
    """The stores and clients of one API process."""

    settings: Settings
    models: Catalogue
    #: The model of a request that names none.
    default_model: Model
    jobs: JobStore
    keys: KeyRing
    tokens: TokenVerifier | None
    bells: Ringer
    waiters: Waiters
    streams: Streams
    addresses: AddressRules
    metrics: ApiMetrics
    tracer: Tracer
    cache: "Redis | None"
    connected: "tuple[Redis, ...]"

    def close(self) -> None:
        """Wait for nobody any more and close every connection."""
        self.waiters.close()
        self.streams.close()
        self.tracer.close()
        for client in self.connected:
            client.close()


def make_services(settings: Settings, tracer: Tracer) -> Services:
    """Connect nothing yet: clients connect on first use, after gunicorn has forked. Raises ConfigurationError."""
    limits = ServiceLimits(
        requests=settings.rate_limit,
        polls=settings.poll_rate_limit,
        tokens=settings.token_rate_limit,
        jobs=settings.max_jobs_in_flight,
    )
    redis, listening, cache = job_redis(settings), job_redis(settings), cache_redis(settings)
    metrics = ApiMetrics(settings.catalogue.names)
    following = job_redis(settings)
    waiters = Waiters(listening, settings.max_waiters, metrics.waits)
    return Services(
        settings=settings,
        models=settings.catalogue,
        default_model=settings.served,
        metrics=metrics,
        tracer=tracer,
        jobs=JobStore(Scripts(redis), limits),
        keys=KeyRing(redis),
        tokens=TokenVerifier.of(settings),
        bells=Ringer(Bells(make_celery(settings)), metrics.rung),
        waiters=waiters,
        streams=Streams(EventStreams(following, Scripts(following)), waiters, metrics.follows),
        addresses=AddressRules(settings),
        cache=cache,
        connected=(redis, listening, following, *([cache] if cache else [])),
    )


def services(app: Flask | None = None) -> Services:
    """Return the services of ``app``, or of the application that handles the current request."""
    found: Services = (app or current_app).extensions["inferq"]
    return found
