"""Webhooks: what is told to receivers, and what they make of it."""

from grafana.model import Dashboard, Panel, Query, Row, Step, lines, tile
from grafana.palette import BAD, GOOD, ORANGE, PLAIN, SKY, VERMILLION, WARN, Look
from grafana.promql import gauge, increase, quantile, rate, ratio, spread

NONE = "none sent"

NOW = Row(
    "Now",
    (
        tile(
            "Not yet ended",
            "Deliveries that are to be sent, now or at their next try. Those for dead receivers stay for days.",
            gauge("inferq_webhook_backlog"),
            "short",
            base=PLAIN,
            empty="no keeper",
            alerts=("InferqWebhookBacklogGrows",),
        ),
        tile(
            "Oldest of them",
            "How long ago the oldest was made. The schedule of attempts takes three days.",
            gauge("inferq_webhook_oldest_seconds"),
            "s",
            base=PLAIN,
            empty="no keeper",
        ),
        tile(
            "Dead letters",
            "Deliveries given up that wait for an operator: python -m inferq webhooks dead.",
            gauge("inferq_webhook_dead_letters"),
            "short",
            Step(1, WARN),
            empty="no keeper",
            alerts=("InferqWebhooksExhausting",),
        ),
        tile(
            "Attempts that succeed",
            "Answered with 2xx, among all.",
            ratio(rate("inferq_webhook_attempts_total", where='result="2xx"'), rate("inferq_webhook_attempts_total")),
            "percentunit",
            Step(0.5, WARN),
            Step(0.9, GOOD),
            base=BAD,
            empty=NONE,
            decimals=1,
        ),
        tile(
            "Deliveries given up",
            "Among those that ended in the time shown.",
            ratio(
                increase("inferq_webhook_deliveries_total", where='outcome="dead"'),
                increase("inferq_webhook_deliveries_total"),
            ),
            "percentunit",
            Step(0.01, WARN),
            Step(0.1, BAD),
            empty=NONE,
            decimals=1,
            alerts=("InferqWebhooksExhausting",),
        ),
        tile(
            "Attempt, p95",
            "From connecting to the end of the answer. WEBHOOK_TIMEOUT bounds it.",
            quantile(0.95, "inferq_webhook_attempt_seconds"),
            "s",
            Step(5, WARN),
            Step(15, BAD),
            empty=NONE,
        ),
    ),
)
TIME = Row(
    "Over time",
    (
        Panel(
            title="Deliveries ended per second",
            description="Delivered, or given up after the last attempt.",
            queries=(Query(expr=rate("inferq_webhook_deliveries_total", "outcome"), legend="{{outcome}}"),),
            unit="short",
            stacked=True,
            empty=NONE,
            alerts=("InferqWebhooksExhausting",),
        ),
        Panel(
            title="Attempts per second, by result",
            description=(
                "no_answer: no connection, or too slow; refused: an address that must not be reached; "
                "broke: a fault of ours."
            ),
            queries=(Query(expr=rate("inferq_webhook_attempts_total", "result"), legend="{{result}}"),),
            unit="short",
            stacked=True,
            empty=NONE,
            alerts=("InferqWebhooksExhausting",),
        ),
        Panel(
            title="Backlog",
            description="Deliveries not ended, and those given up that nobody has looked at.",
            queries=(
                Query(expr=gauge("inferq_webhook_backlog"), legend="not ended", look=Look(SKY)),
                Query(expr=gauge("inferq_webhook_dead_letters"), legend="given up", look=Look(VERMILLION, "dash")),
            ),
            unit="short",
            empty="no keeper",
            alerts=("InferqWebhookBacklogGrows",),
        ),
        Panel(
            title="How long an attempt takes",
            description="From connecting to the end of the answer.",
            queries=lines({f"p{q:g}": quantile(q / 100, "inferq_webhook_attempt_seconds") for q in (50, 95, 99)}),
            unit="s",
            empty=NONE,
        ),
        Panel(
            title="How long an attempt takes",
            description="How many attempts took how long.",
            queries=(Query(expr=spread("inferq_webhook_attempt_seconds"), legend="{{le}}"),),
            kind="heatmap",
            unit="s",
            empty=NONE,
        ),
        Panel(
            title="Age of the oldest delivery",
            description="Of those that have not ended.",
            queries=(Query(expr=gauge("inferq_webhook_oldest_seconds"), legend="oldest", look=Look(ORANGE)),),
            unit="s",
            empty="no keeper",
        ),
    ),
)

BOARD = Dashboard(
    uid="inferq-webhooks",
    title="inferq: webhooks",
    description="What is told to receivers, and what they make of it.",
    rows=(NOW, TIME),
)
