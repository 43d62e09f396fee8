"""Workers: the processes, whether they are there, and what they cost."""

from grafana.model import Dashboard, Panel, Query, Row, Step, lines, tile
from grafana.palette import BAD, GOOD, GREEN, GREY, SKY, WARN, Look
from grafana.promql import gauge, increase, pick, quantile, rate, ratio

NO_FLOWER = "no Flower"
#: Every process has these metrics, also those of other systems.
OURS = 'job=~"inferq-.+|flower"'

THERE = Row(
    "Who is there",
    (
        tile(
            "Not scraped",
            "Processes that Prometheus knows and cannot reach.",
            f"count({pick('up', OURS)} == 0) or vector(0)",
            "none",
            Step(1, BAD),
            empty="none",
            alerts=("InferqTargetDown", "InferqAPIMissing", "InferqWorkerMissing", "InferqKeeperMissing"),
        ),
        tile(
            "Workers that take runs",
            "As they say themselves.",
            gauge("inferq_worker_ready"),
            "none",
            Step(1, GOOD),
            base=BAD,
            empty="no worker",
            alerts=("InferqNoReadyWorker",),
        ),
        tile(
            "Versions",
            "Versions of inferq that run. More than one for long is a rollout that stopped halfway.",
            f"count({gauge('inferq_build_info', 'version', how='count')})",
            "none",
            Step(2, WARN),
            empty="no process",
            alerts=("InferqVersionsDiffer",),
        ),
        tile(
            "Workers online in Flower",
            "Celery workers that Flower hears of, keepers among them.",
            gauge("flower_worker_online"),
            "none",
            Step(1, GOOD),
            base=BAD,
            empty=NO_FLOWER,
            alerts=("InferqFlowerMissing",),
        ),
        tile(
            "Heartbeats missed",
            "Among all of the time shown. A worker that misses several in a row loses its runs.",
            ratio(
                increase("inferq_heartbeats_total", where='result="missed"'),
                increase("inferq_heartbeats_total"),
            ),
            "percentunit",
            Step(0.01, WARN),
            Step(0.1, BAD),
            empty="no worker",
            decimals=1,
            alerts=("InferqHeartbeatsMissed",),
        ),
        tile(
            "Keeper's ticks missed",
            "Among all of the time shown. Without ticks nothing is rescued and no deadline ends a job.",
            ratio(
                increase("inferq_keeper_ticks_total", where='result="missed"'),
                increase("inferq_keeper_ticks_total"),
            ),
            "percentunit",
            Step(0.01, WARN),
            Step(0.1, BAD),
            empty="no keeper",
            decimals=1,
            alerts=("InferqKeeperTicksMissed",),
        ),
    ),
)
WORK = Row(
    "Work",
    (
        Panel(
            title="Slots and runs",
            description="Of all workers together, as they say themselves.",
            queries=(
                Query(expr=gauge("inferq_worker_running"), legend="running", look=Look(SKY)),
                Query(expr=gauge("inferq_worker_slots"), legend="slots", look=Look(GREY, "dash")),
            ),
            unit="short",
            empty="no worker",
        ),
        Panel(
            title="Runs, by worker",
            description="Runs that each worker holds. All should carry alike.",
            queries=(Query(expr=gauge("inferq_worker_running", "instance"), legend="{{instance}}"),),
            unit="short",
            empty="no worker",
        ),
        Panel(
            title="Attempts ended per second, by outcome",
            description="queued: handed back to the queue; refused: its result came too late.",
            queries=(Query(expr=rate("inferq_attempts_total", "outcome"), legend="{{outcome}}"),),
            unit="short",
            stacked=True,
        ),
        Panel(
            title="Heartbeats per second",
            description="By which workers keep their leases.",
            queries=(Query(expr=rate("inferq_heartbeats_total", "result"), legend="{{result}}"),),
            unit="short",
            empty="no worker",
            alerts=("InferqHeartbeatsMissed",),
        ),
        Panel(
            title="Keeper's ticks per second",
            description="Rounds of rescue, deadlines and retention.",
            queries=(Query(expr=rate("inferq_keeper_ticks_total", "result"), legend="{{result}}"),),
            unit="short",
            empty="no keeper",
            alerts=("InferqKeeperTicksMissed",),
        ),
        Panel(
            title="Processes",
            description="How many of each run, by their version.",
            queries=(
                Query(expr=gauge("inferq_build_info", "role", "version"), legend="{{role}} {{version}}", instant=True),
            ),
            kind="bargauge",
            unit="none",
            decimals=0,
            empty="no process",
            alerts=("InferqVersionsDiffer",),
        ),
    ),
)
PROCESSES = Row(
    "Processes",
    (
        Panel(
            title="Memory",
            description="Resident memory of workers and keepers. vLLM's own processes are not in it.",
            queries=(
                Query(
                    expr=gauge("process_resident_memory_bytes", "job", "instance", where=OURS),
                    legend="{{job}} {{instance}}",
                ),
            ),
            unit="bytes",
            width=6,
            empty="no process",
        ),
        Panel(
            title="CPU",
            description="Cores that workers and keepers keep busy. vLLM's own processes are not in it.",
            queries=(
                Query(
                    expr=rate("process_cpu_seconds_total", "job", "instance", where=OURS), legend="{{job}} {{instance}}"
                ),
            ),
            unit="none",
            width=6,
            empty="no process",
        ),
        Panel(
            title="Running for",
            description="Time since the process started.",
            queries=(
                Query(
                    expr=f"time() - {gauge('process_start_time_seconds', 'job', 'instance', where=OURS, how='max')}",
                    legend="{{job}} {{instance}}",
                ),
            ),
            unit="s",
            width=6,
            empty="no process",
        ),
        Panel(
            title="Open files",
            description="Connections among them.",
            queries=(
                Query(expr=gauge("process_open_fds", "job", "instance", where=OURS), legend="{{job}} {{instance}}"),
            ),
            unit="short",
            width=6,
            empty="no process",
        ),
    ),
)
FLOWER = Row(
    "Flower",
    (
        Panel(
            title="Task events per second",
            description="Celery's events, by their type.",
            queries=(Query(expr=rate("flower_events_total", "type"), legend="{{type}}"),),
            unit="short",
            empty=NO_FLOWER,
        ),
        Panel(
            title="How long tasks take",
            description="Of Celery, generations and webhook shifts alike.",
            queries=lines({f"p{q:g}": quantile(q / 100, "flower_task_runtime_seconds") for q in (50, 95, 99)}),
            unit="s",
            empty=NO_FLOWER,
        ),
        Panel(
            title="Online",
            description="Celery workers that Flower hears of.",
            queries=(Query(expr=gauge("flower_worker_online"), legend="online", look=Look(GREEN)),),
            unit="none",
            empty=NO_FLOWER,
            alerts=("InferqFlowerMissing",),
        ),
    ),
)

BOARD = Dashboard(
    uid="inferq-workers",
    title="inferq: workers",
    description="The processes, whether they are there, and what they cost.",
    rows=(THERE, WORK, PROCESSES, FLOWER),
)
