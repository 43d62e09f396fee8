"""Engine and GPU: how full the engine is, how fast it writes, and the card below it."""

from grafana.model import Dashboard, Panel, Query, Row, Step, lines, tile
from grafana.palette import BAD, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, WARN, Look
from grafana.promql import gauge, increase, quantile, rate, ratio, spread

NO_VLLM = "no vLLM"
NO_GPU = "no NVIDIA GPU"

STATE = Row(
    "State",
    (
        Panel(
            title="Engines",
            description="Each worker with the state of its engine.",
            queries=(Query(expr=f"{gauge('inferq_engine_state', 'instance', 'state')} == 1", legend="{{state}}"),),
            kind="stat",
            unit="none",
            width=8,
            height=4,
            text="name",
            empty="no worker",
            alerts=("InferqEngineDead", "InferqEngineKeepsDying", "InferqNoReadyWorker"),
        ),
        tile(
            "Engine deaths",
            "Engines that died or hung in the time shown.",
            increase("inferq_engine_deaths_total"),
            "short",
            Step(1, BAD),
            empty="no keeper",
            decimals=0,
            alerts=("InferqEngineKeepsDying",),
        ),
        tile(
            "Loading took",
            "The longest that a worker's engine took to load and warm up.",
            gauge("inferq_engine_load_seconds", how="max"),
            "s",
            Step(300, WARN),
            empty="no worker",
            decimals=0,
        ),
        tile(
            "KV cache",
            "Used share of the fullest engine's KV cache. Full and preempting, it computes things twice.",
            gauge("vllm:kv_cache_usage_perc", how="max"),
            "percentunit",
            Step(0.8, WARN),
            Step(0.95, BAD),
            empty=NO_VLLM,
            decimals=0,
            alerts=("InferqKVCacheFull",),
        ),
        tile(
            "Prefix cache",
            "Prompt tokens that vLLM's prefix cache had already.",
            ratio(rate("vllm:prefix_cache_hits_total"), rate("vllm:prefix_cache_queries_total")),
            "percentunit",
            base=SKY,
            decimals=1,
        ),
    ),
)
WORK = Row(
    "Work",
    (
        Panel(
            title="Runs in the engine",
            description="As vLLM sees them. Waiting here: the worker takes more than the engine has room for.",
            queries=(
                Query(expr=gauge("vllm:num_requests_running"), legend="running", look=Look(SKY)),
                Query(expr=gauge("vllm:num_requests_waiting"), legend="waiting", look=Look(ORANGE, "dash")),
            ),
            unit="short",
            empty=NO_VLLM,
        ),
        Panel(
            title="KV cache in use",
            description="By worker. Full and preempting for ten minutes, it alerts.",
            queries=(Query(expr=gauge("vllm:kv_cache_usage_perc", "instance", how="max"), legend="{{instance}}"),),
            unit="percentunit",
            high=1,
            steps=(Step(0.95, BAD),),
            empty=NO_VLLM,
            alerts=("InferqKVCacheFull",),
        ),
        Panel(
            title="Preemptions per second",
            description="Runs that were put back because the KV cache was full, and are computed again.",
            queries=(Query(expr=rate("vllm:num_preemptions_total"), legend="preemptions", look=Look(VERMILLION)),),
            unit="short",
            empty=NO_VLLM,
            alerts=("InferqKVCacheFull",),
        ),
        Panel(
            title="Tokens per second, by model",
            description="Written by workers, as they report them; and pieces of text told to those who follow.",
            queries=(
                Query(expr=rate("inferq_completion_tokens_total", "model"), legend="{{model}}"),
                Query(expr=rate("inferq_stream_pieces_total"), legend="pieces told", look=Look(GREY, "dash")),
            ),
            unit="short",
        ),
        Panel(
            title="Tokens per second, as vLLM counts",
            description="Prompts read, the part of them found in the prefix cache, and tokens generated.",
            queries=(
                Query(expr=rate("vllm:generation_tokens_total"), legend="generated", look=Look(SKY)),
                Query(expr=rate("vllm:prompt_tokens_total"), legend="read", look=Look(PURPLE, "dash")),
                Query(expr=rate("vllm:prefix_cache_hits_total"), legend="found in the cache", look=Look(GREEN, "dot")),
            ),
            unit="short",
            empty=NO_VLLM,
        ),
        Panel(
            title="Answers per second, by finish reason",
            description="stop: it was done; length: max_tokens; abort: cancelled, past its deadline, or handed back.",
            queries=(Query(expr=rate("vllm:request_success_total", "finished_reason"), legend="{{finished_reason}}"),),
            unit="short",
            stacked=True,
            empty=NO_VLLM,
        ),
    ),
)
PACE = Row(
    "Pace, as vLLM measures it",
    (
        Panel(
            title="First token",
            description="From arrival in vLLM to the first token.",
            queries=lines({f"p{q:g}": quantile(q / 100, "vllm:time_to_first_token_seconds") for q in (50, 95, 99)}),
            unit="s",
            empty=NO_VLLM,
        ),
        Panel(
            title="Between tokens",
            description="Of one answer.",
            queries=lines({f"p{q:g}": quantile(q / 100, "vllm:inter_token_latency_seconds") for q in (50, 95, 99)}),
            unit="s",
            empty=NO_VLLM,
        ),
        Panel(
            title="Whole answer",
            description="From arrival in vLLM to the last token.",
            queries=(Query(expr=spread("vllm:e2e_request_latency_seconds"), legend="{{le}}"),),
            kind="heatmap",
            unit="s",
            empty=NO_VLLM,
        ),
    ),
)
CARD = Row(
    "GPU",
    (
        Panel(
            title="Busy",
            description="Share of time in which a kernel ran.",
            queries=(
                Query(expr=gauge("inferq_gpu_utilization_ratio", "instance", "gpu"), legend="{{instance}} GPU {{gpu}}"),
            ),
            unit="percentunit",
            width=6,
            high=1,
            empty=NO_GPU,
        ),
        Panel(
            title="Memory",
            description="Used by whatever runs on the card, and how much there is.",
            queries=(
                Query(expr=gauge("inferq_gpu_memory_used_bytes", "instance", "gpu"), legend="{{instance}} GPU {{gpu}}"),
                Query(
                    expr=gauge("inferq_gpu_memory_total_bytes", how="max"), legend="there is", look=Look(GREY, "dot")
                ),
            ),
            unit="bytes",
            width=6,
            empty=NO_GPU,
        ),
        Panel(
            title="Temperature",
            description="The alert is at 88 degrees; a T4 slows down above.",
            queries=(
                Query(
                    expr=gauge("inferq_gpu_temperature_celsius", "instance", "gpu"), legend="{{instance}} GPU {{gpu}}"
                ),
            ),
            unit="celsius",
            width=6,
            low=None,
            steps=(Step(88, BAD),),
            empty=NO_GPU,
            alerts=("InferqGPUTooHot",),
        ),
        Panel(
            title="Power",
            description="Drawn by the card.",
            queries=(
                Query(expr=gauge("inferq_gpu_power_watts", "instance", "gpu"), legend="{{instance}} GPU {{gpu}}"),
            ),
            unit="watt",
            width=6,
            empty=NO_GPU,
        ),
    ),
)

BOARD = Dashboard(
    uid="inferq-engine",
    title="inferq: engine and GPU",
    description="How full the engine is, how fast it writes, and the card below it.",
    rows=(STATE, WORK, PACE, CARD),
)
