"""Overview: whether it is well, and how long a caller waits now."""

from grafana.model import Dashboard, Panel, Query, Row, Step, lines, tile
from grafana.palette import BAD, GOOD, GREY, ORANGE, PLAIN, PURPLE, SKY, VERMILLION, WARN, Look
from grafana.promql import gauge, quantile, rate, ratio, within

#: Jobs are meant to be completed within so many seconds, written as the bucket's bound is.
TARGET = "30.0"
ERRORS = rate("inferq_jobs_finished_total", where='outcome=~"failed|expired"')
COUNTED = rate("inferq_jobs_finished_total", where='outcome!="cancelled"')

NOW = Row(
    "Now",
    (
        tile(
            "Ready workers",
            "Workers whose engine is warm and takes runs. Without one, jobs are accepted and wait.",
            gauge("inferq_workers", where='state="ready"'),
            "none",
            Step(1, GOOD),
            base=BAD,
            empty="no keeper",
            alerts=("InferqNoReadyWorker", "InferqQueueMetricsMissing"),
        ),
        tile(
            "A new job waits",
            "How long a job of common size, sent now, waits until it starts. Empty while no worker is ready.",
            gauge("inferq_queue_predicted_wait_seconds", how="max"),
            "s",
            Step(30, WARN),
            Step(120, BAD),
            empty="no ready worker",
            decimals=1,
        ),
        tile(
            "Oldest waiting job",
            "Age of the run that has waited longest. The alert fires from two minutes on.",
            gauge("inferq_queue_oldest_seconds", how="max"),
            "s",
            Step(60, WARN),
            Step(120, BAD),
            empty="no keeper",
            decimals=1,
            alerts=("InferqOldestJobTooOld",),
        ),
        tile(
            "Done within 30 s",
            "Completed jobs that took 30 s at most, from submit to result.",
            within(TARGET, "inferq_job_duration_seconds"),
            "percentunit",
            Step(0.9, WARN),
            Step(0.95, GOOD),
            base=BAD,
            decimals=1,
        ),
        tile(
            "Errors",
            "Failed and expired jobs among all that ended, cancelled ones left out. One in a hundred is the objective.",
            ratio(ERRORS, COUNTED),
            "percentunit",
            Step(0.01, WARN),
            Step(0.06, BAD),
            decimals=2,
            alerts=("InferqErrorBudgetBurnsFast", "InferqErrorBudgetBurnsSlowly"),
        ),
        tile(
            "Alerts",
            "Alerts that fire now, of whatever severity.",
            'count(ALERTS{alertstate="firing", alertname=~"Inferq.+"}) or vector(0)',
            "none",
            Step(1, BAD),
            empty="no rules",
        ),
    ),
)
CALLERS = Row(
    "Callers",
    (
        Panel(
            title="From submit to result",
            description="How long completed jobs took. The line is the target of 30 s.",
            queries=lines({f"p{q:g}": quantile(q / 100, "inferq_job_duration_seconds") for q in (50, 95, 99)}),
            unit="s",
            steps=(Step(30, BAD),),
            alerts=("InferqOldestJobTooOld",),
        ),
        Panel(
            title="Jobs ended per second",
            description="By what became of them.",
            queries=(Query(expr=rate("inferq_jobs_finished_total", "outcome"), legend="{{outcome}}"),),
            unit="short",
            stacked=True,
            alerts=("InferqQueueStalled",),
        ),
        Panel(
            title="Submits per second",
            description="How submits were answered: from the cache, by a shared run, by the queue, as repeats, or not.",
            queries=(
                Query(expr=rate("inferq_admissions_total", "decision"), legend="{{decision}}"),
                Query(expr=rate("inferq_refusals_total"), legend="turned away", look=Look(VERMILLION, "dot")),
            ),
            unit="short",
            stacked=True,
            alerts=("InferqSubmitsRefused",),
        ),
    ),
)
LOAD = Row(
    "Load",
    (
        Panel(
            title="Waiting and running",
            description="Jobs that wait, runs in engines, slots of ready workers: the most that run at once.",
            queries=(
                Query(expr=gauge("inferq_queue_depth"), legend="waiting jobs", look=Look(ORANGE)),
                Query(expr=gauge("inferq_runs_in_progress"), legend="running", look=Look(SKY)),
                Query(expr=gauge("inferq_engine_slots"), legend="slots", look=Look(GREY, "dash")),
            ),
            unit="short",
            alerts=("InferqQueueStalled",),
        ),
        Panel(
            title="Tokens per second",
            description="Prompt tokens read and completion tokens written by all engines.",
            queries=(
                Query(expr=rate("inferq_completion_tokens_total"), legend="written", look=Look(SKY)),
                Query(expr=rate("inferq_prompt_tokens_total"), legend="read", look=Look(PURPLE, "dash")),
            ),
            unit="short",
        ),
        Panel(
            title="HTTP answers per second",
            description="By class of status. 503 is how a full system refuses; the alert counts the other 5xx.",
            queries=tuple(
                Query(expr=rate("inferq_http_requests_total", where=f'status=~"{kind[0]}.."'), legend=kind)
                for kind in ("2xx", "3xx", "4xx", "5xx")
            ),
            unit="reqps",
            stacked=True,
            alerts=("InferqAPIErrors",),
        ),
    ),
)
OBJECTIVE = Row(
    "Objective and store",
    (
        Panel(
            title="How fast the error budget burns",
            description=(
                "Errors as a multiple of what the objective of 99 % allows, by the recording rules. "
                "At 1 the budget of a month lasts a month. Pages come at 14.4 over an hour and at 6 over six hours."
            ),
            queries=(
                Query(expr="max(inferq:job_errors:ratio_rate1h) / 0.01", legend="over 1 h", look=Look(ORANGE)),
                Query(expr="max(inferq:job_errors:ratio_rate6h) / 0.01", legend="over 6 h", look=Look(SKY, "dash")),
            ),
            unit="none",
            steps=(Step(6, WARN), Step(14.4, BAD)),
            alerts=("InferqErrorBudgetBurnsFast", "InferqErrorBudgetBurnsSlowly"),
        ),
        Panel(
            title="Workers, by state",
            description="By the state of their engine, as their heartbeats say.",
            queries=(Query(expr=gauge("inferq_workers", "state"), legend="{{state}}"),),
            unit="none",
            stacked=True,
            empty="no keeper",
            alerts=("InferqNoReadyWorker", "InferqEngineDead"),
        ),
        tile(
            "Redis",
            "Whether keepers can read Redis.",
            gauge("inferq_redis_up"),
            "none",
            Step(1, GOOD),
            base=BAD,
            empty="no keeper",
            words={"0": "away", "1": "there"},
            alerts=("InferqRedisUnreachable",),
        ),
        tile(
            "Memory of Redis",
            "Used share of maxmemory. From 85 % on submits are refused. Empty where Redis has no limit.",
            ratio(gauge("inferq_redis_memory_used_bytes"), gauge("inferq_redis_memory_max_bytes")),
            "percentunit",
            Step(0.75, WARN),
            Step(0.85, BAD),
            empty="no limit",
            decimals=1,
            alerts=("InferqRedisNearlyFull", "InferqRedisFull"),
        ),
        tile(
            "Held open",
            "Clients that wait: long-polls, event streams, WebSockets.",
            f"{gauge('inferq_http_waiting')} + {gauge('inferq_http_streams')}",
            "none",
            base=PLAIN,
            empty="no API",
        ),
        tile(
            "Paused",
            "Engines that an operator has paused: what runs finishes, what waits waits.",
            gauge("inferq_queue_paused"),
            "none",
            Step(1, WARN),
            empty="no keeper",
            words={"0": "none"},
            alerts=("InferqQueuePausedForLong",),
        ),
    ),
)

BOARD = Dashboard(
    uid="inferq-overview",
    title="inferq: overview",
    description="Is it well, and how long does a caller wait now?",
    rows=(NOW, CALLERS, LOAD, OBJECTIVE),
)
