"""vLLM's OpenAI-compatible server with the engine options of an inferq worker: ``python -m bench.vllm_server PORT``."""

import json
import runpy
import sys

from inferq.settings import load_settings
from workers.placement import leave_a_core
from workers.vllm_engine import engine_options


def arguments(port: int) -> list[str]:
    """Return the server's command line; its access log is off, as inferq's is."""
    settings = load_settings()
    options = engine_options(settings) | {"host": "127.0.0.1", "port": port, "served_model_name": settings.public_model}
    found = ["--disable-uvicorn-access-log"]
    for name, value in options.items():
        switch = "--" + name.replace("_", "-")
        found += [switch] if value is True else [switch, json.dumps(value) if isinstance(value, dict) else str(value)]
    return found


if __name__ == "__main__":
    leave_a_core()
    sys.argv = ["api_server", *arguments(int(sys.argv[1]))]
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
