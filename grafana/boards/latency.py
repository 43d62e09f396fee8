"""Latency: where the seconds of a job go."""

from grafana.boards.overview import TARGET
from grafana.model import Dashboard, Panel, Query, Row, Step, lines
from grafana.palette import BAD, GOOD, ORANGE, PURPLE, SKY, Look
from grafana.promql import mean, quantile, spread, within

QUANTILES = (50, 95, 99)


def _quantiles(title: str, description: str, name: str, *steps: Step, alerts: tuple[str, ...] = ()) -> Panel:
    queries = lines({f"p{q:g}": quantile(q / 100, name) for q in QUANTILES})
    return Panel(title=title, description=description, queries=queries, unit="s", steps=steps, alerts=alerts)


def _heatmap(title: str, description: str, name: str) -> Panel:
    query = Query(expr=spread(name), legend="{{le}}")
    return Panel(title=title, description=description, queries=(query,), kind="heatmap", unit="s")


PHASES = Row(
    "Where the time goes",
    (
        Panel(
            title="Mean seconds of a job, by phase",
            description=(
                "Waiting in the queue, from the start of the attempt to the first token, and from there to the result. "
                "Means, because only they add up."
            ),
            queries=(
                Query(expr=mean("inferq_job_queue_wait_seconds"), legend="queue wait", look=Look(ORANGE)),
                Query(expr=mean("inferq_time_to_first_token_seconds"), legend="first token", look=Look(PURPLE)),
                Query(
                    expr=f"{mean('inferq_generation_seconds')} - {mean('inferq_time_to_first_token_seconds')}",
                    legend="generation",
                    look=Look(SKY),
                ),
            ),
            unit="s",
            width=16,
            stacked=True,
        ),
        Panel(
            title="Completed within 30 s",
            description="By priority, from submit to result.",
            queries=(Query(expr=within(TARGET, "inferq_job_duration_seconds", "priority"), legend="{{priority}}"),),
            unit="percentunit",
            high=1,
            base=BAD,
            steps=(Step(0.95, GOOD),),
        ),
    ),
)
DISTRIBUTIONS = Row(
    "Distributions",
    (
        _quantiles(
            "From submit to result",
            "Completed jobs. The line is the target of 30 s.",
            "inferq_job_duration_seconds",
            Step(30, BAD),
        ),
        _heatmap("From submit to result", "How many jobs took how long.", "inferq_job_duration_seconds"),
        Panel(
            title="From submit to result, p95 by priority",
            description="Who has the higher priority should wait less.",
            queries=(Query(expr=quantile(0.95, "inferq_job_duration_seconds", "priority"), legend="{{priority}}"),),
            unit="s",
        ),
        _quantiles(
            "Queue wait",
            "From submit to the first start.",
            "inferq_job_queue_wait_seconds",
            alerts=("InferqOldestJobTooOld",),
        ),
        _heatmap("Queue wait", "How many jobs waited how long.", "inferq_job_queue_wait_seconds"),
        Panel(
            title="Queue wait, p95 by priority",
            description="From submit to the first start.",
            queries=(Query(expr=quantile(0.95, "inferq_job_queue_wait_seconds", "priority"), legend="{{priority}}"),),
            unit="s",
        ),
    ),
)
ENGINE = Row(
    "In the engine",
    (
        _quantiles(
            "First token", "From the start of the attempt to its first token.", "inferq_time_to_first_token_seconds"
        ),
        _heatmap("First token", "How many attempts took how long.", "inferq_time_to_first_token_seconds"),
        _quantiles(
            "Time per token",
            "Between the tokens of an answer, after the first.",
            "inferq_time_per_output_token_seconds",
            alerts=("InferqKVCacheFull",),
        ),
        _quantiles("Generation", "An attempt from its claim to its result.", "inferq_generation_seconds"),
        _heatmap("Generation", "How many attempts took how long.", "inferq_generation_seconds"),
        Panel(
            title="Generation, p95 by model",
            description="An attempt from its claim to its result.",
            queries=(Query(expr=quantile(0.95, "inferq_generation_seconds", "model"), legend="{{model}}"),),
            unit="s",
        ),
    ),
)
HTTP = Row(
    "HTTP",
    (
        _quantiles(
            "Requests that did not ask to wait",
            "All routes. Submits should take milliseconds.",
            "inferq_http_request_seconds",
            alerts=("InferqSubmitsSlow",),
        ),
        Panel(
            title="p95 by route",
            description="Requests that did not ask to wait.",
            queries=(
                Query(
                    expr=quantile(0.95, "inferq_http_request_seconds", "method", "route"),
                    legend="{{method}} {{route}}",
                ),
            ),
            unit="s",
            alerts=("InferqSubmitsSlow",),
        ),
        _heatmap("Requests that did not ask to wait", "How many took how long.", "inferq_http_request_seconds"),
    ),
)

BOARD = Dashboard(
    uid="inferq-latency",
    title="inferq: latency",
    description="Where the seconds of a job go: queue wait, first token, generation.",
    rows=(PHASES, DISTRIBUTIONS, ENGINE, HTTP),
)
