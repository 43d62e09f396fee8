"""A GPU worker from start to end: warming, ready, draining, dead."""

import os
import threading
import time
from typing import Final

import structlog
from prometheus_client import REGISTRY, CollectorRegistry

from inferq.ids import new_id
from inferq.queue import Bells, Ringer, make_celery
from inferq.redis_client import cache_redis, job_redis
from inferq.run_store import RunStore
from inferq.scripts import Scripts
from inferq.settings import Settings
from inferq.tracing import make_tracer
from workers.engine import Engine, load_engine
from workers.exposition import Exposition
from workers.gpu import find_gpus
from workers.heartbeat import Heartbeat
from workers.listener import Listener
from workers.metrics import WorkerMetrics
from workers.orphans import start_guard
from workers.progress import Progress, Pulse
from workers.runner import Runner
from workers.token_streams import TokenStreams

log = structlog.get_logger()

#: Exit status after the engine died: the supervisor starts the worker again (sysexits' EX_SOFTWARE).
EXIT_ENGINE_DEAD: Final = 70
#: Exit status when the grace was not enough (sysexits' EX_TEMPFAIL).
EXIT_DRAIN_OVERRUN: Final = 75
#: Seconds between looks at the engine.
WATCH_S: Final = 0.25
#: Seconds without such a look after which a probe is told that the worker is stuck; one whose engine died ends sooner.
STUCK_S: Final = 60.0
#: Seconds for runs to be handed back after they were aborted.
HAND_BACK_S: Final = 5.0


class Worker:
    """Everything one GPU worker process has, and the order in which it comes and goes."""

    def __init__(
        self, settings: Settings, engine: Engine | None = None, registry: CollectorRegistry = REGISTRY
    ) -> None:
        """``registry``: by default the one in which vLLM has its metrics too."""
        self.settings = settings
        self._registry = registry
        self.metrics = WorkerMetrics(registry, settings.public_model)
        self.state = "warming"
        self.engine = engine or load_engine(settings)
        lease_ms = round(settings.lease * 1000)
        name = new_id()
        self._tracer = make_tracer(settings, "worker")
        bells = Ringer(Bells(make_celery(settings)), self.metrics.rung)

        def store() -> RunStore:
            scripts = Scripts(job_redis(settings))
            return RunStore(scripts, engine=settings.engine_queue, worker=name, lease_ms=lease_ms)

        self.streams = TokenStreams(store=store(), engine=self.engine, counted=self.metrics.pieces)
        self.runner = Runner(
            engine=self.engine,
            store=store(),
            bells=bells,
            cache=cache_redis(settings),
            cache_ttl_s=settings.cache_ttl,
            metrics=self.metrics,
            streams=self.streams,
            tracer=self._tracer,
        )
        self.heartbeat = Heartbeat(
            store=store(),
            held=self.runner.held,
            bells=bells,
            engine=self.engine,
            state=lambda: self.state,
            lease_s=settings.lease,
            metrics=self.metrics,
        )
        self.listener = Listener(
            redis=job_redis(settings),
            name=settings.engine_queue,
            engine=self.engine,
            idle=self.runner.idle,
        )
        self._watch = Pulse(STUCK_S)
        self._ending = threading.Lock()

    def offer_metrics(self) -> None:
        """Let Prometheus and probes in; raises ConfigurationError when the port is taken."""
        gpus = find_gpus()
        if gpus:
            self._registry.register(gpus)
        Exposition(
            self._registry,
            address=(self.settings.metrics_host, self.settings.metrics_port),
            setting="METRICS_PORT",
            token=self.settings.metrics_token,
            ready=lambda: self.state == "ready",
            alive=self._alive,
        ).start()

    def warm_up(self) -> None:
        """Make the engine ready; blocks. Nothing is consumed before this returns."""
        began = time.monotonic()
        start_guard()
        self.heartbeat.start()
        self.engine.start()
        self.listener.start()
        self.streams.start()
        self.metrics.loaded(time.monotonic() - began)
        log.info("engine_ready", seconds=round(time.monotonic() - began, 1), slots=self.engine.slots)
        self._watch.beat()
        threading.Thread(target=self._watch_engine, name="engine-watch", daemon=True).start()

    def consume(self) -> None:
        """Say that the worker takes runs: bells are rung for what waits."""
        self.state = "ready"
        self.heartbeat.beat()

    def drain(self) -> None:
        """Stop claiming; give running runs the grace, then hand them back without a strike. Returns at once."""
        if self.state in ("draining", "dead"):
            return
        self.state = "draining"
        self.runner.close()
        log.info("draining", running=len(self.runner.held), grace_s=self.settings.drain_grace)
        threading.Thread(target=self._drain, name="drain", daemon=True).start()

    def close(self) -> None:
        """End the engine and leave; all threads have ended by now."""
        self.runner.leaving.set()
        self.streams.stop()
        self.engine.stop()
        self.listener.stop()
        self.heartbeat.stop()
        self._tracer.close()

    def _drain(self) -> None:
        self.heartbeat.beat()
        if self._empty_within(self.settings.drain_grace):
            return
        log.warning("grace_over", running=len(self.runner.held))
        self.engine.abort_all()
        if self._empty_within(HAND_BACK_S):
            return
        log.error("drain_overrun", running=len(self.runner.held))
        self._exit(EXIT_DRAIN_OVERRUN)

    def _alive(self) -> bool:
        # An engine that dies or hangs is ended by the watch, and the process with it. What is left for a supervisor is
        # a process in which nobody watches, or which cannot end. Loading and draining have limits of their own.
        return self.state in ("warming", "draining") or self._watch.felt

    def _watch_engine(self) -> None:
        progress = Progress(self.engine, self.settings.engine_hang)
        hung = False
        while not (hung or self.engine.dead or self.runner.closed.is_set()):
            time.sleep(WATCH_S)
            self._watch.beat()
            hung = progress.stalled()
        if not hung and not self.engine.dead:
            return  # draining
        self.state = "dead"  # from now on no lease is renewed
        self.runner.close()
        log.error("engine_hung" if hung else "engine_dead", running=len(self.runner.held))
        if hung:
            self.engine.kill()
        self.heartbeat.beat()
        self._empty_within(HAND_BACK_S)
        self._exit(EXIT_ENGINE_DEAD)

    def _empty_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while len(self.runner.held):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def _exit(self, status: int) -> None:
        with self._ending:
            self.close()
            os._exit(status)
