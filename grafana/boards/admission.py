"""Cache and limiter: what is answered at once, and what is turned away."""

from grafana.model import Dashboard, Panel, Query, Row, Step, lines, tile
from grafana.palette import BAD, GREY, PLAIN, SKY, WARN, Look
from grafana.promql import gauge, increase, quantile, rate, ratio, spread

LOOKED_UP = rate("inferq_cache_requests_total", where='result!="bypass"')

CACHE = Row(
    "Cache",
    (
        tile(
            "Hit ratio",
            "Answers from the cache among requests that looked there.",
            ratio(rate("inferq_cache_requests_total", where='result="hit"'), LOOKED_UP),
            "percentunit",
            base=PLAIN,
            decimals=1,
        ),
        tile(
            "Spared the engine",
            "Requests that cost no generation: hits, and those that shared the run of another.",
            ratio(rate("inferq_cache_requests_total", where='result=~"hit|coalesced"'), LOOKED_UP),
            "percentunit",
            base=PLAIN,
            decimals=1,
        ),
        tile(
            "Cache errors",
            "Look-ups that failed, per second. Such requests are computed.",
            rate("inferq_cache_requests_total", where='result="error"'),
            "short",
            Step(0.01, WARN),
            decimals=2,
        ),
        tile(
            "Median age of a hit",
            "How old the answers are that come from the cache. CACHE_TTL bounds it.",
            quantile(0.5, "inferq_cache_hit_age_seconds"),
            "s",
            base=PLAIN,
            empty="no hits",
        ),
        tile(
            "Turned away",
            "Submits refused, for whatever reason, among all.",
            ratio(
                rate("inferq_refusals_total"), f"({rate('inferq_refusals_total')} + {rate('inferq_admissions_total')})"
            ),
            "percentunit",
            Step(0.05, WARN),
            Step(0.25, BAD),
            decimals=1,
            alerts=("InferqSubmitsRefused",),
        ),
        tile(
            "Limited",
            "Decisions of the limiter that were no, among all.",
            ratio(
                rate("inferq_limiter_decisions_total", where='decision="limited"'),
                rate("inferq_limiter_decisions_total"),
            ),
            "percentunit",
            Step(0.05, WARN),
            Step(0.25, BAD),
            decimals=1,
        ),
        Panel(
            title="Cache requests per second",
            description="Hits, shared runs, misses, those that asked not to look, and failed look-ups.",
            queries=(Query(expr=rate("inferq_cache_requests_total", "result"), legend="{{result}}"),),
            unit="short",
            stacked=True,
        ),
        Panel(
            title="Age of hits",
            description="How old the answers are that come from the cache.",
            queries=lines({f"p{q:g}": quantile(q / 100, "inferq_cache_hit_age_seconds") for q in (50, 95)}),
            unit="s",
            empty="no hits",
        ),
        Panel(
            title="Age of hits",
            description="How many hits were how old.",
            queries=(Query(expr=spread("inferq_cache_hit_age_seconds"), legend="{{le}}"),),
            kind="heatmap",
            unit="s",
            empty="no hits",
        ),
    ),
)
DOOR = Row(
    "Admission",
    (
        Panel(
            title="Submits accepted per second",
            description="From the cache, by sharing a run, by the queue, or as a repeat of an earlier submit.",
            queries=(Query(expr=rate("inferq_admissions_total", "decision"), legend="{{decision}}"),),
            unit="short",
            stacked=True,
        ),
        Panel(
            title="Submits accepted per second, by priority",
            description="The priority that a job was given, which may be lower than it asked for.",
            queries=(Query(expr=rate("inferq_admissions_total", "priority"), legend="{{priority}}"),),
            unit="short",
            stacked=True,
        ),
        Panel(
            title="Submits refused, by reason",
            description=(
                "In the time shown. requests, polls, tokens, jobs: a limit of the key; runs_full, tokens_full, late, "
                "memory_full, waiters: no room; store: no Redis."
            ),
            queries=(
                Query(
                    expr=f"sort_desc({increase('inferq_refusals_total', 'reason')} > 0)",
                    legend="{{reason}}",
                    instant=True,
                ),
            ),
            kind="bargauge",
            unit="short",
            decimals=0,
            empty="none",
            alerts=("InferqSubmitsRefused", "InferqRedisFull"),
        ),
    ),
)
LIMITER = Row(
    "Limiter",
    (
        Panel(
            title="Decisions per second",
            description="Of all policies together.",
            queries=(Query(expr=rate("inferq_limiter_decisions_total", "decision"), legend="{{decision}}"),),
            unit="short",
            stacked=True,
        ),
        Panel(
            title="Limited per second, by policy",
            description="Requests a minute, polls a minute, tokens a minute, jobs in flight.",
            queries=(
                Query(
                    expr=rate("inferq_limiter_decisions_total", "policy", where='decision="limited"'),
                    legend="{{policy}}",
                ),
            ),
            unit="short",
        ),
        Panel(
            title="Memory of Redis",
            description="Used, maxmemory, and the 85 % of it from which on submits are refused and nothing is cached.",
            queries=(
                Query(expr=gauge("inferq_redis_memory_used_bytes"), legend="used", look=Look(SKY)),
                Query(
                    expr=f"0.85 * {gauge('inferq_redis_memory_max_bytes')} > 0",
                    legend="submits are refused",
                    look=Look(BAD, "dash"),
                ),
                Query(expr=f"{gauge('inferq_redis_memory_max_bytes')} > 0", legend="maxmemory", look=Look(GREY, "dot")),
            ),
            unit="bytes",
            empty="no keeper",
            alerts=("InferqRedisNearlyFull", "InferqRedisFull"),
        ),
    ),
)

BOARD = Dashboard(
    uid="inferq-admission",
    title="inferq: cache and limiter",
    description="What is answered at once, and what is turned away.",
    rows=(CACHE, DOOR, LIMITER),
)
