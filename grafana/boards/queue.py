"""Queue: what waits, for how long, and whether it moves."""

from grafana.model import Dashboard, Panel, Query, Row, Step, lines, tile
from grafana.palette import BAD, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, WARN, Look
from grafana.promql import gauge, increase, quantile, rate

WAITING = Row(
    "What waits",
    (
        Panel(
            title="Waiting jobs, by priority",
            description="Jobs that have not started. Several jobs may share one run.",
            queries=(Query(expr=gauge("inferq_queue_depth", "priority"), legend="{{priority}}"),),
            unit="short",
            stacked=True,
            empty="no keeper",
            alerts=("InferqQueueStalled", "InferqQueueMetricsMissing"),
        ),
        Panel(
            title="How long",
            description="Age of the oldest waiting run, and what a new job of common size is told. 120 s alerts.",
            queries=(
                Query(expr=gauge("inferq_queue_oldest_seconds", how="max"), legend="oldest waiting", look=Look(ORANGE)),
                Query(
                    expr=gauge("inferq_queue_predicted_wait_seconds", how="max"),
                    legend="predicted for a new job",
                    look=Look(SKY, "dash"),
                ),
            ),
            unit="s",
            steps=(Step(120, BAD),),
            empty="no keeper",
            alerts=("InferqOldestJobTooOld",),
        ),
        Panel(
            title="Does it keep up? Jobs per second",
            description="Jobs that came to the queue and jobs that left it. While the first is above, it grows.",
            queries=(
                Query(
                    expr=rate("inferq_admissions_total", where='decision=~"queued|coalesced"'),
                    legend="came",
                    look=Look(ORANGE),
                ),
                Query(expr=rate("inferq_jobs_finished_total"), legend="ended", look=Look(GREEN, "dash")),
            ),
            unit="short",
            alerts=("InferqQueueStalled",),
        ),
        Panel(
            title="Slots",
            description="Runs in engines against the slots of ready workers. A gap beside waiting jobs is a fault.",
            queries=(
                Query(expr=gauge("inferq_runs_in_progress"), legend="running", look=Look(SKY)),
                Query(expr=gauge("inferq_engine_slots"), legend="slots", look=Look(GREY, "dash")),
            ),
            unit="short",
            empty="no keeper",
            alerts=("InferqNoReadyWorker",),
        ),
        Panel(
            title="Waiting runs, by line",
            description="The queue; struck runs, which share an engine with few; and those that run alone.",
            queries=(Query(expr=gauge("inferq_queue_runs", "line"), legend="{{line}}"),),
            unit="short",
            stacked=True,
            empty="no keeper",
        ),
        Panel(
            title="Tokens that wait",
            description="Reserved by what waits: estimated prompts and max_tokens. MAX_QUEUED_TOKENS bounds it.",
            queries=(Query(expr=gauge("inferq_queue_tokens", "model"), legend="{{model}}"),),
            unit="short",
            empty="no keeper",
            alerts=("InferqSubmitsRefused",),
        ),
    ),
)
ENDS = Row(
    "How it ends",
    (
        Panel(
            title="Jobs ended per second, by outcome",
            description="Expired are those whose deadline passed.",
            queries=(Query(expr=rate("inferq_jobs_finished_total", "outcome"), legend="{{outcome}}"),),
            unit="short",
            stacked=True,
            alerts=("InferqErrorBudgetBurnsFast", "InferqErrorBudgetBurnsSlowly"),
        ),
        Panel(
            title="From cancel to a free slot",
            description="From the cancel or deadline of a running run until its engine had freed it.",
            queries=lines({f"p{q:g}": quantile(q / 100, "inferq_cancel_freed_seconds") for q in (50, 95, 99)}),
            unit="s",
            empty="nothing cancelled",
        ),
        tile(
            "Given up",
            "Runs given up in the time shown: guilty of three dead engines, or lost too often.",
            increase("inferq_runs_given_up_total"),
            "short",
            Step(1, BAD),
            empty="none",
            decimals=0,
            alerts=("InferqRunsGivenUp",),
        ),
        tile(
            "Dead letters",
            "Runs given up that wait for an operator: python -m inferq dead-letters list.",
            gauge("inferq_dead_letters"),
            "short",
            Step(1, WARN),
            empty="no keeper",
            alerts=("InferqDeadLettersWait",),
        ),
        Panel(
            title="Given up, by reason",
            description="Runs given up in the time shown.",
            queries=(
                Query(
                    expr=f"sort_desc({increase('inferq_runs_given_up_total', 'reason')} > 0)",
                    legend="{{reason}}",
                    instant=True,
                ),
            ),
            kind="bargauge",
            unit="short",
            height=4,
            decimals=0,
            empty="none",
            alerts=("InferqRunsGivenUp",),
        ),
    ),
)
FAULTS = Row(
    "Faults and bells",
    (
        Panel(
            title="Rescues and strikes per second",
            description="Runs taken back from workers whose lease had ended, and strikes given when an engine died.",
            queries=(
                Query(expr=rate("inferq_rescues_total"), legend="rescues", look=Look(ORANGE)),
                Query(expr=rate("inferq_strikes_total"), legend="strikes", look=Look(VERMILLION, "dash")),
            ),
            unit="short",
            alerts=("InferqRunsRescued", "InferqEngineKeepsDying"),
        ),
        Panel(
            title="Refused writes per second",
            description="Writes of workers that no longer held the run. They do no harm; many mean leases are lost.",
            queries=(Query(expr=rate("inferq_fenced_total", "step"), legend="{{step}}"),),
            unit="short",
            alerts=("InferqHeartbeatsMissed",),
        ),
        Panel(
            title="Bells that wait",
            description="Celery messages in the engine's list. At most twice the slots, unless nobody consumes.",
            queries=(Query(expr=gauge("inferq_bells_waiting", "model"), legend="{{model}}"),),
            unit="short",
            empty="no keeper",
        ),
        Panel(
            title="Bells rung per second",
            description="Celery messages sent, those that could not be sent, and those rung again by the sweep.",
            queries=(
                Query(expr=rate("inferq_bells_rung_total", where='result="sent"'), legend="sent"),
                Query(
                    expr=rate("inferq_bells_rung_total", where='result="failed"'),
                    legend="not sent",
                    look=Look(VERMILLION, "dot"),
                ),
                Query(expr=rate("inferq_bells_restored_total"), legend="rung again", look=Look(PURPLE, "dash")),
            ),
            unit="short",
            alerts=("InferqBellsFail",),
        ),
        Panel(
            title="Bells answered per second",
            description="Whether a bell found runs. An empty one is harmless.",
            queries=(Query(expr=rate("inferq_bells_answered_total", "found"), legend="{{found}}"),),
            unit="short",
            stacked=True,
        ),
        Panel(
            title="Paused",
            description="1 while an operator has paused the engine.",
            queries=(Query(expr=gauge("inferq_queue_paused", "model"), legend="{{model}}"),),
            unit="none",
            high=1,
            empty="no keeper",
            alerts=("InferqQueuePausedForLong",),
        ),
    ),
)

BOARD = Dashboard(
    uid="inferq-queue",
    title="inferq: queue",
    description="What waits, for how long, and whether it moves.",
    rows=(WAITING, ENDS, FAULTS),
)
