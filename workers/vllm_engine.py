"""vLLM's AsyncLLM behind the engine protocol. The only module that imports vLLM."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import psutil
import structlog
import uvloop
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.envs import enable_envs_cache
from vllm.exceptions import VLLMClientError
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.renderers.inputs.preprocess import parse_model_prompt
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.utils.gc_utils import freeze_gc_heap
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from inferq.errors import ConfigurationError, EngineDead, EngineGone, RequestFailed, RunAborted
from inferq.requests import GenerationRequest
from inferq.run_store import Completion
from inferq.settings import Settings
from workers.adapters import adapter_options
from workers.placement import leave_a_core, part_cores

log = structlog.get_logger()

Returned = TypeVar("Returned")

#: Scheduler and model in one process. They take turns: in vLLM's default for CPUs, a process each, the one that waits
#: keeps a core busy. The default is there to set the number of OpenMP threads, which leave_a_core does here.
CPU_EXECUTOR: Final = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
#: Seconds for which the event loop is waited for when it is asked what has been written.
TEXTS_S: Final = 5.0
#: Seconds the engine may take to end before it is left to the guard.
STOP_S: Final = 5.0


class VllmEngine:
    """One AsyncLLM on one event loop in one thread that lives as long as the process.

    Every Celery thread hands its coroutine to that loop, so all runs share the engine's batch.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.slots = settings.max_num_seqs
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm-loop", daemon=True)
        self._llm: AsyncLLM | None = None
        adapters = settings.catalogue.adapters(settings.engine_queue)
        self._adapters = {
            one.name: LoRARequest(one.name, number, one.adapter) for number, one in enumerate(adapters, start=1)
        }
        self.takes_cores = not current_platform.is_cuda()
        self._dead = False
        self._processes: list[psutil.Process] = []
        self._lock = threading.Lock()
        self._running: dict[str, asyncio.Task[Any]] = {}

    def start(self) -> None:
        """Load the model and run one greedy and one sampled request through it, so that no job pays for first uses."""
        self._thread.start()
        before = psutil.Process().children(recursive=True)
        try:
            self._on_loop(self._load()).result()
            self._processes = [child for child in psutil.Process().children(recursive=True) if child not in before]
            if self.takes_cores:
                part_cores(self._processes)
            for request in _warm_up_requests():
                self.generate("warm-up", request, "warm-up")
            # As vLLM's own server does: what is loaded by now stays, and the collector need not walk it again.
            freeze_gc_heap()
        except (EngineDead, ConfigurationError):
            raise
        except Exception as error:  # vLLM raises nearly anything here; the operator needs its words
            self._dead = True
            raise EngineDead(f"{type(error).__name__}: {error}") from error

    def generate(self, run_id: str, request: GenerationRequest, salt: str) -> Completion:
        """See :class:`workers.engine.Engine`."""
        return self._on_loop(self._tracked(run_id, request, salt)).result()

    def abort(self, run_id: str) -> None:
        """See :class:`workers.engine.Engine`."""
        self._loop.call_soon_threadsafe(self._cancel, run_id)

    def abort_all(self) -> None:
        """See :class:`workers.engine.Engine`."""
        for run_id in list(self._running):
            self.abort(run_id)

    def written(self) -> dict[str, int]:
        """See :class:`workers.engine.Engine`. Asked every few seconds, so that no step has to report it."""
        llm = self._llm
        if llm is None:
            return {}
        states = llm.output_processor.request_states.copy().values()
        return {one.external_req_id: one.detokenizer.num_output_tokens() for one in states if one.detokenizer}

    def texts(self, run_ids: Iterable[str]) -> dict[str, str]:
        """See :class:`workers.engine.Engine`.

        Asked every few moments instead of having vLLM hand over each token: that would wake a coroutine for every token
        of every run. On the loop, where no text is half-way through the search for stop strings.
        """
        return self._on_loop(self._texts(frozenset(run_ids))).result(TEXTS_S)

    async def _texts(self, run_ids: frozenset[str]) -> dict[str, str]:
        llm = self._llm
        states = llm.output_processor.request_states.values() if llm else ()
        return {
            one.external_req_id: one.detokenizer.get_next_output_text(finished=False, delta=False)
            for one in states
            if one.external_req_id in run_ids and one.detokenizer
        }

    @property
    def dead(self) -> bool:
        """See :class:`workers.engine.Engine`."""
        return self._dead or (self._llm is not None and bool(self._llm.errored))

    def kill(self) -> None:
        """See :class:`workers.engine.Engine`. vLLM notices and fails what it was asked."""
        self._dead = True
        for process in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def stop(self) -> None:
        """See :class:`workers.engine.Engine`."""
        with self._lock:
            llm, self._llm = self._llm, None
        if llm is not None:
            self._dead = True
            llm.shutdown(timeout=STOP_S)
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STOP_S)

    def _on_loop(self, coroutine: Coroutine[Any, Any, Returned]) -> "Future[Returned]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _load(self) -> None:
        # The service counts its own metrics; nothing is reported to vLLM's authors.
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # noqa: TID251  # vLLM's own switch, not a setting of ours
        if not current_platform.is_cuda():
            leave_a_core()
        self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_options(self._settings)))
        for adapter in self._adapters.values():
            await self._llm.add_lora(adapter)  # now, or one that cannot be loaded would fail the first who asks for it
        enable_envs_cache()  # it asks the environment several times in each step

    def _cancel(self, run_id: str) -> None:
        task = self._running.get(run_id)
        if task:
            task.cancel()

    async def _tracked(self, run_id: str, request: GenerationRequest, salt: str) -> Completion:
        llm = self._llm
        if llm is None or llm.errored:
            raise EngineGone
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # coroutines of this class run as tasks of its loop
        self._running[run_id] = task
        try:
            return await self._generate(llm, run_id, request, salt)
        except asyncio.CancelledError:
            del self._running[run_id]  # a second abort must not disturb what follows
            await self._freed(llm)
            raise RunAborted from None
        except (EngineDeadError, EngineGenerateError) as error:
            if llm.errored:
                raise EngineDead from error
            raise RequestFailed("engine_error", "the engine failed this request", retryable=True) from error
        except VLLMClientError as error:
            raise self._refusal(error, request) from None
        finally:
            self._running.pop(run_id, None)

    def _refusal(self, error: VLLMClientError, request: GenerationRequest) -> RequestFailed:
        """Say what vLLM complains of in words of ours: its own sentence may quote the prompt."""
        parameter = getattr(error, "parameter", None)
        if parameter in ("input_text", "input_tokens"):
            limit = self._settings.max_model_len
            return RequestFailed("prompt_too_long", f"prompt and answer together may have {limit} tokens")
        if parameter is None and request.response_format is not None:
            return RequestFailed("invalid_response_format", "the engine cannot follow this response_format.json_schema")
        return RequestFailed(
            "invalid_request", f"the engine refuses this request ({parameter or type(error).__name__})"
        )

    async def _freed(self, llm: AsyncLLM) -> None:
        """Return once the engine core has handled the abort: it answers calls in the order they were sent."""
        try:
            await llm.is_sleeping()
        except EngineDeadError as error:
            raise EngineDead from error

    async def _generate(self, llm: AsyncLLM, run_id: str, request: GenerationRequest, salt: str) -> Completion:
        limit = self._settings.max_model_len
        prompt = parse_model_prompt(llm.model_config, {**self._prompt(llm, request), "cache_salt": salt})
        (rendered,) = await llm.renderer.render_cmpl_async([prompt], llm.renderer.default_cmpl_tok_params)
        tokens = len(rendered["prompt_token_ids"])
        if tokens >= limit:
            raise RequestFailed(
                "prompt_too_long", f"the prompt has {tokens} tokens; prompt and answer together may have {limit}"
            )
        final: RequestOutput | None = None
        parameters = sampling_params(request, max_tokens=min(request.max_tokens, limit - tokens))
        adapter = self._adapters.get(request.model)
        async for output in llm.generate(rendered, parameters, run_id, lora_request=adapter):
            final = output
        if final is None or not final.outputs or final.outputs[0].finish_reason == "abort":
            raise RunAborted
        answer = final.outputs[0]
        ttft = getattr(final.metrics, "first_token_latency", 0.0) or 0.0
        return Completion(
            text=answer.text,
            finish_reason=answer.finish_reason or "stop",
            prompt_tokens=tokens,
            completion_tokens=len(answer.token_ids),
            ttft_ms=round(ttft * 1000),
        )

    def _prompt(self, llm: AsyncLLM, request: GenerationRequest) -> dict[str, Any]:
        if request.prompt is not None:
            return {"prompt": request.prompt}
        turns = [turn.model_dump() for turn in request.messages or []]
        try:
            ids = llm.get_tokenizer().apply_chat_template(
                turns, add_generation_prompt=True, tokenize=True, return_dict=False
            )
        except Exception as error:  # templates are programs and refuse in their own ways
            raise RequestFailed(
                "chat_template", f"the model's chat template refuses these messages ({type(error).__name__})"
            ) from None
        return {"prompt_token_ids": list(ids)}


def engine_options(settings: Settings) -> dict[str, Any]:
    """Return vLLM's engine arguments by name.

    Quantization and attention stay automatic: AWQ runs on Marlin from a T4 upwards.
    """
    on_gpu = current_platform.is_cuda()
    if on_gpu:
        extra: dict[str, Any] = {"gpu_memory_utilization": settings.gpu_memory_util}
    else:
        # Without an explicit size the CPU build claims nearly all memory; compiling takes longer than it saves here.
        extra = {
            "kv_cache_memory_bytes": int(settings.cpu_kv_cache_gib * 2**30),
            "enforce_eager": True,
            "distributed_executor_backend": CPU_EXECUTOR,
        }
    return {
        "model": settings.served.checkpoint,
        "dtype": "half" if on_gpu else "bfloat16",  # few CPUs have float16 arithmetic: a quarter of the speed
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "enable_prefix_caching": True,
        # Free white space lets a small model fill its answer with it and never come to the point. Of vLLM's grammar
        # backends that can forbid it, this one knows most of JSON Schema.
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
        **adapter_options(settings.catalogue.adapters(settings.engine_queue)),
        **extra,
    }


def sampling_params(request: GenerationRequest, *, max_tokens: int) -> SamplingParams:
    """Translate a request. Only the final output is asked for: then a step of the engine costs the loop nothing."""
    structured = None
    if request.response_format is not None:
        structured = StructuredOutputsParams(json=request.response_format.json_schema)
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        seed=request.seed,
        stop=request.stop or None,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        structured_outputs=structured,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _warm_up_requests() -> list[GenerationRequest]:
    return [
        GenerationRequest(prompt="warm up " * 32, max_tokens=8, temperature=0.0),
        GenerationRequest(prompt="warm up", max_tokens=8, temperature=1.0, top_p=0.9, top_k=10, seed=1),
    ]
