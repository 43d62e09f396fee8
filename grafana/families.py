"""The metrics that dashboards and rules speak of: what they are, who has them, and their labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["gauge", "counter", "histogram"]
#: Who has it. What ``redis`` has is read from Redis by every keeper with the same values.
Owner = Literal["redis", "keeper", "worker", "api", "every", "vllm", "flower", "process"]

#: A label whose values nobody knows beforehand.
OPEN: Final[tuple[str, ...]] = ()
MODEL: Final[Mapping[str, tuple[str, ...]]] = {"model": OPEN}
PRIORITY: Final[Mapping[str, tuple[str, ...]]] = {"priority": ("high", "normal", "low")}
GPU: Final[Mapping[str, tuple[str, ...]]] = {"gpu": OPEN}
VLLM: Final[Mapping[str, tuple[str, ...]]] = {"model_name": OPEN, "engine": OPEN}
_STATES: Final = ("ready", "warming", "draining", "dead")
_REASONS: Final = (
    "unauthorized requests polls tokens jobs too_costly unserved runs_full tokens_full late memory_full waiters store "
    "not_cached idempotency webhook model invalid error"
)


@dataclass(frozen=True)
class Family:
    """One metric; a counter is named with its ``_total``, a histogram without ``_bucket``."""

    name: str
    kind: Kind
    owner: Owner
    labels: Mapping[str, tuple[str, ...]]

    @property
    def shared(self) -> bool:
        """Whether every keeper has the same series, so that a sum over instances would count them twice."""
        return self.owner == "redis"

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which Prometheus has it."""
        if self.kind != "histogram":
            return (self.name,)
        return tuple(self.name + suffix for suffix in ("_bucket", "_count", "_sum"))


def _family(kind: Kind, owner: Owner, name: str, *labels: Mapping[str, tuple[str, ...]], **own: str) -> Family:
    given = {label: values for mapping in labels for label, values in mapping.items()}
    return Family(name, kind, owner, given | {label: tuple(values.split()) for label, values in own.items()})


FAMILIES: Final[Mapping[str, Family]] = {
    family.name: family
    for family in (
        _family("gauge", "redis", "inferq_queue_depth", MODEL, PRIORITY),
        _family("gauge", "redis", "inferq_queue_runs", MODEL, line="queue struck solitary"),
        _family("gauge", "redis", "inferq_queue_tokens", MODEL),
        _family("gauge", "redis", "inferq_queue_oldest_seconds", MODEL),
        _family("gauge", "redis", "inferq_queue_predicted_wait_seconds", MODEL),
        _family("gauge", "redis", "inferq_queue_paused", MODEL),
        _family("gauge", "redis", "inferq_runs_in_progress", MODEL),
        _family("gauge", "redis", "inferq_engine_slots", MODEL),
        _family("gauge", "redis", "inferq_workers", MODEL, {"state": _STATES}),
        _family("gauge", "redis", "inferq_bells_waiting", MODEL),
        _family("gauge", "redis", "inferq_dead_letters"),
        _family("gauge", "redis", "inferq_webhook_backlog"),
        _family("gauge", "redis", "inferq_webhook_oldest_seconds"),
        _family("gauge", "redis", "inferq_webhook_dead_letters"),
        _family("gauge", "redis", "inferq_redis_up"),
        _family("gauge", "redis", "inferq_redis_memory_used_bytes"),
        _family("gauge", "redis", "inferq_redis_memory_max_bytes"),
        _family(
            "counter", "redis", "inferq_jobs_finished_total", MODEL, PRIORITY,
            outcome="completed failed cancelled expired",
        ),
        _family("counter", "redis", "inferq_rescues_total", MODEL),
        _family("counter", "redis", "inferq_strikes_total", MODEL),
        _family("counter", "redis", "inferq_runs_given_up_total", MODEL, reason="poison worker_lost"),
        _family("counter", "redis", "inferq_fenced_total", MODEL, step="complete fail release"),
        _family("counter", "redis", "inferq_engine_deaths_total", MODEL),
        _family("counter", "redis", "inferq_webhook_deliveries_total", outcome="delivered dead"),
        _family("histogram", "redis", "inferq_job_queue_wait_seconds", MODEL, PRIORITY),
        _family("histogram", "redis", "inferq_job_duration_seconds", MODEL, PRIORITY),
        _family("histogram", "redis", "inferq_cancel_freed_seconds", MODEL),
        _family("counter", "keeper", "inferq_webhook_attempts_total", result="2xx 3xx 4xx 5xx no_answer refused broke"),
        _family("histogram", "keeper", "inferq_webhook_attempt_seconds"),
        _family("counter", "keeper", "inferq_keeper_ticks_total", result="done missed"),
        _family("counter", "keeper", "inferq_bells_restored_total"),
        _family("counter", "every", "inferq_bells_rung_total", result="sent failed"),
        _family("gauge", "every", "inferq_build_info", {"version": OPEN}, role="api worker keeper"),
        _family("gauge", "worker", "inferq_worker_ready"),
        _family("gauge", "worker", "inferq_engine_state", {"state": _STATES}),
        _family("gauge", "worker", "inferq_engine_load_seconds"),
        _family("gauge", "worker", "inferq_worker_slots"),
        _family("gauge", "worker", "inferq_worker_running"),
        _family(
            "counter", "worker", "inferq_attempts_total", outcome="completed failed queued cancelled expired refused"
        ),
        _family("histogram", "worker", "inferq_time_to_first_token_seconds", MODEL),
        _family("histogram", "worker", "inferq_time_per_output_token_seconds", MODEL),
        _family("histogram", "worker", "inferq_generation_seconds", MODEL),
        _family("counter", "worker", "inferq_prompt_tokens_total", MODEL),
        _family("counter", "worker", "inferq_completion_tokens_total", MODEL),
        _family("counter", "worker", "inferq_stream_pieces_total"),
        _family("counter", "worker", "inferq_bells_answered_total", found="runs nothing"),
        _family("counter", "worker", "inferq_heartbeats_total", result="done missed"),
        _family("gauge", "worker", "inferq_gpu_utilization_ratio", GPU),
        _family("gauge", "worker", "inferq_gpu_memory_used_bytes", GPU),
        _family("gauge", "worker", "inferq_gpu_memory_total_bytes", GPU),
        _family("gauge", "worker", "inferq_gpu_temperature_celsius", GPU),
        _family("gauge", "worker", "inferq_gpu_power_watts", GPU),
        _family("counter", "api", "inferq_http_requests_total", {"method": OPEN, "route": OPEN, "status": OPEN}),
        _family("histogram", "api", "inferq_http_request_seconds", {"method": OPEN, "route": OPEN}),
        _family("gauge", "api", "inferq_http_waiting"),
        _family("gauge", "api", "inferq_http_streams"),
        _family(
            "counter", "api", "inferq_admissions_total", MODEL, PRIORITY, decision="queued coalesced cached replayed"
        ),
        _family("counter", "api", "inferq_refusals_total", reason=_REASONS),
        _family("counter", "api", "inferq_cache_requests_total", result="hit coalesced miss bypass error"),
        _family("histogram", "api", "inferq_cache_hit_age_seconds"),
        _family(
            "counter", "api", "inferq_limiter_decisions_total", policy="requests polls tokens jobs",
            decision="allowed limited",
        ),
        _family("gauge", "vllm", "vllm:num_requests_running", VLLM),
        _family("gauge", "vllm", "vllm:num_requests_waiting", VLLM),
        _family("gauge", "vllm", "vllm:kv_cache_usage_perc", VLLM),
        _family("counter", "vllm", "vllm:prefix_cache_queries_total", VLLM),
        _family("counter", "vllm", "vllm:prefix_cache_hits_total", VLLM),
        _family("counter", "vllm", "vllm:num_preemptions_total", VLLM),
        _family("counter", "vllm", "vllm:prompt_tokens_total", VLLM),
        _family("counter", "vllm", "vllm:generation_tokens_total", VLLM),
        _family("counter", "vllm", "vllm:request_success_total", VLLM, finished_reason="stop length abort"),
        _family("histogram", "vllm", "vllm:time_to_first_token_seconds", VLLM),
        _family("histogram", "vllm", "vllm:inter_token_latency_seconds", VLLM),
        _family("histogram", "vllm", "vllm:e2e_request_latency_seconds", VLLM),
        _family("counter", "flower", "flower_events_total", {"task": OPEN, "type": OPEN, "worker": OPEN}),
        _family("gauge", "flower", "flower_worker_online", {"worker": OPEN}),
        _family("histogram", "flower", "flower_task_runtime_seconds", {"task": OPEN, "worker": OPEN}),
        _family("gauge", "process", "process_resident_memory_bytes"),
        _family("counter", "process", "process_cpu_seconds_total"),
        _family("gauge", "process", "process_start_time_seconds"),
        _family("gauge", "process", "process_open_fds"),
        _family("gauge", "process", "up"),
    )
}  # fmt: skip
