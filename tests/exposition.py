"""What a busy inferq would tell Prometheus: every metric that dashboards and rules know, changing in time."""

import itertools
import math
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from grafana.families import FAMILIES, Family

#: Values of labels that are open.
OPEN = {
    "model": ["demo-mistral"],
    "model_name": ["demo-mistral"],
    "engine": ["0"],
    "gpu": ["0"],
    "version": ["0.6.0"],
    "method": ["POST"],
    "route": ["/v1/jobs", "/infer"],
    "status": ["202", "200", "304", "429", "503", "500"],
    "task": ["inferq.generate"],
    "type": ["task-received", "task-started", "task-succeeded"],
    "worker": ["worker@host"],
}
#: Which owners' metrics a page has, by Prometheus's job.
PAGES = {
    "inferq-api": ("api", "every"),
    "inferq-worker": ("worker", "vllm", "every", "process"),
    "inferq-keeper": ("redis", "keeper", "every", "process"),
    "flower": ("flower",),
}
JOB_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 600, 1800)
TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
#: Buckets, median in seconds, and observations a second.
HISTOGRAMS = {
    "inferq_job_queue_wait_seconds": (JOB_BUCKETS, 4.0, 8),
    "inferq_job_duration_seconds": (JOB_BUCKETS, 9.0, 8),
    "inferq_cancel_freed_seconds": (JOB_BUCKETS, 0.08, 1),
    "inferq_generation_seconds": (JOB_BUCKETS, 4.5, 8),
    "inferq_time_to_first_token_seconds": (
        (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80), 0.3, 8,
    ),
    "inferq_time_per_output_token_seconds": (TOKEN_BUCKETS, 0.03, 8),
    "inferq_webhook_attempt_seconds": ((0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60), 0.2, 3),
    "inferq_http_request_seconds": (HTTP_BUCKETS, 0.004, 30),
    "inferq_cache_hit_age_seconds": ((1, 10, 60, 300, 900, 1800, 3600, 7200, 21600, 86400), 400, 4),
    "vllm:time_to_first_token_seconds": (HTTP_BUCKETS, 0.25, 8),
    "vllm:inter_token_latency_seconds": (TOKEN_BUCKETS, 0.03, 40),
    "vllm:e2e_request_latency_seconds": (JOB_BUCKETS, 4.5, 8),
    "flower_task_runtime_seconds": ((0.5, 1, 2, 5, 10, 30, 60), 4.0, 2),
}  # fmt: skip
#: How often, compared with others of the same label.
WEIGHTS = {
    "completed": 1.0, "failed": 0.01, "cancelled": 0.06, "expired": 0.005, "high": 0.2, "normal": 1.0, "low": 0.5,
    "2xx": 1.0, "3xx": 0.01, "4xx": 0.03, "5xx": 0.1, "no_answer": 0.05, "delivered": 1.0, "dead": 0.02, "done": 1.0,
    "missed": 0.002, "sent": 1.0, "allowed": 1.0, "limited": 0.05, "hit": 0.5, "miss": 1.0, "coalesced": 0.15,
    "bypass": 0.1, "queued": 1.0, "cached": 0.5, "202": 1.0, "200": 0.5, "304": 0.3, "429": 0.05, "503": 0.02,
    "500": 0.001,
    "stop": 1.0, "length": 0.3, "abort": 0.05, "runs": 1.0, "requests": 0.5,
}  # fmt: skip
BASES = {
    "inferq_prompt_tokens_total": 900.0, "inferq_completion_tokens_total": 2400.0, "vllm:prompt_tokens_total": 900.0,
    "vllm:generation_tokens_total": 2400.0, "vllm:prefix_cache_queries_total": 900.0,
    "vllm:prefix_cache_hits_total": 300.0, "process_cpu_seconds_total": 0.4, "inferq_engine_deaths_total": 0.02,
    "inferq_rescues_total": 0.05, "inferq_strikes_total": 0.05, "inferq_runs_given_up_total": 0.3,
    "inferq_fenced_total": 0.3, "inferq_bells_restored_total": 0.1, "inferq_keeper_ticks_total": 1.0,
    "inferq_heartbeats_total": 0.33, "vllm:num_preemptions_total": 0.2,
}  # fmt: skip
GAUGES = {
    "inferq_queue_depth": 30.0, "inferq_queue_runs": 8.0, "inferq_queue_tokens": 9000.0,
    "inferq_queue_oldest_seconds": 25.0, "inferq_queue_predicted_wait_seconds": 18.0, "inferq_queue_paused": 0.0,
    "inferq_runs_in_progress": 9.0, "inferq_engine_slots": 16.0, "inferq_bells_waiting": 6.0,
    "inferq_dead_letters": 2.0,
    "inferq_webhook_backlog": 40.0, "inferq_webhook_oldest_seconds": 3000.0, "inferq_webhook_dead_letters": 3.0,
    "inferq_redis_up": 1.0, "inferq_redis_memory_used_bytes": 700e6, "inferq_redis_memory_max_bytes": 1e9,
    "inferq_build_info": 1.0, "inferq_worker_ready": 1.0, "inferq_engine_load_seconds": 41.0,
    "inferq_worker_slots": 16.0, "inferq_worker_running": 9.0, "inferq_gpu_utilization_ratio": 0.8,
    "inferq_gpu_memory_used_bytes": 13e9, "inferq_gpu_memory_total_bytes": 15.8e9,
    "inferq_gpu_temperature_celsius": 71.0, "inferq_gpu_power_watts": 64.0,
    "inferq_http_waiting": 12.0, "inferq_http_streams": 7.0,
    "vllm:num_requests_running": 14.0, "vllm:num_requests_waiting": 1.0,
    "vllm:kv_cache_usage_perc": 0.6, "flower_worker_online": 1.0, "process_resident_memory_bytes": 3e8,
    "process_open_fds": 60.0,
}  # fmt: skip
#: Gauges that are what they are, whatever the load.
STEADY = {
    "inferq_queue_paused", "inferq_engine_slots", "inferq_dead_letters", "inferq_redis_up", "inferq_build_info",
    "inferq_redis_memory_max_bytes", "inferq_worker_ready", "inferq_engine_load_seconds", "inferq_worker_slots",
    "inferq_gpu_memory_total_bytes", "flower_worker_online",
}  # fmt: skip


class Exposition:
    """Counters and histograms that have grown since the last look, gauges that follow the same wave."""

    def __init__(self, *, idle: bool = False) -> None:
        self._idle = idle
        self._began = self._at = time.time()
        self._random = random.Random(6)
        self._counters: dict[str, float] = {}
        self._buckets: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self._lock = threading.Lock()

    def page(self, job: str) -> str:
        """What a process of this job says now."""
        with self._lock:
            now = time.time()
            seconds, self._at = now - self._at, now
            wave = 0.0 if self._idle else 1 + 0.7 * math.sin((now - self._began) / 9)
            for family in FAMILIES.values():
                self._grow(family, seconds * wave, wave)
            wanted = [family for family in FAMILIES.values() if family.owner in PAGES[job] and family.name != "up"]
            return "".join(line + "\n" for family in wanted for line in self._lines(family, job, wave))

    def _grow(self, family: Family, seconds: float, wave: float) -> None:
        for labels in _combinations(family):
            key = _key(family.name, labels)
            weight = math.prod(
                WEIGHTS.get(value, 0.02 if value not in OPEN_VALUES else 1.0) for value in labels.values()
            )
            if family.kind == "counter":
                self._counters[key] = self._counters.get(key, 0.0) + BASES.get(family.name, 8.0) * weight * seconds
            elif family.kind == "histogram":
                bounds, median, rate = HISTOGRAMS[family.name]
                counts = self._buckets.setdefault(key, [0] * (len(bounds) + 1))
                for _ in range(self._count(rate * weight * seconds)):
                    value = median * math.exp(self._random.gauss(0, 0.6)) * (0.6 + 0.6 * wave)
                    counts[sum(value > bound for bound in bounds)] += 1
                    self._sums[key] = self._sums.get(key, 0.0) + value

    def _count(self, expected: float) -> int:
        return int(expected) + (self._random.random() < expected % 1)

    def _lines(self, family: Family, job: str, wave: float) -> Iterator[str]:
        yield f"# TYPE {family.name} {family.kind}"
        for labels in _combinations(family):
            if "role" in labels and labels["role"] not in job:
                continue
            key = _key(family.name, labels)
            if family.kind == "counter":
                yield f"{key} {self._counters[key]}"
            elif family.kind == "gauge":
                yield f"{key} {self._gauge(family.name, labels, wave)}"
            else:
                bounds = HISTOGRAMS[family.name][0]
                total = 0
                for bound, count in zip([*map(float, bounds), "+Inf"], self._buckets[key], strict=True):
                    total += count
                    yield f"{_key(family.name + '_bucket', labels | {'le': str(bound)})} {total}"
                yield f"{_key(family.name + '_count', labels)} {total}"
                yield f"{_key(family.name + '_sum', labels)} {self._sums.get(key, 0.0)}"

    def _gauge(self, name: str, labels: dict[str, str], wave: float) -> float:
        if name in ("inferq_workers", "inferq_engine_state"):
            return float(labels["state"] == "ready")
        if name == "process_start_time_seconds":
            return self._began - 4000
        if name in STEADY:
            return GAUGES[name]
        if name.endswith(("_ratio", "_perc", "_celsius", "_bytes", "_watts")):
            return GAUGES[name] * (0.7 + 0.15 * wave)
        return round(GAUGES[name] * wave)


OPEN_VALUES = {value for values in OPEN.values() for value in values}


def _combinations(family: Family) -> Iterator[dict[str, str]]:
    names = list(family.labels)
    for values in itertools.product(*(family.labels[name] or OPEN[name] for name in names)):
        yield dict(zip(names, values, strict=True))


def _key(name: str, labels: dict[str, str]) -> str:
    return name + ("{" + ",".join(f'{label}="{value}"' for label, value in labels.items()) + "}" if labels else "")


@contextmanager
def serving(exposition: Exposition) -> Iterator[int]:
    """Serve the pages at ``/<job>`` on a port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exposition.page(self.path.strip("/")).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
