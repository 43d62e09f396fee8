"""GPU metrics against a stand-in for the driver's library: what is asked, in which units, and what is not told."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.processes import ROOT
from workers.gpu import find_gpus

#: Two cards; the second does not tell its power.
DRIVER = """
#include <string.h>
typedef struct { unsigned int gpu, memory; } utilization;
typedef struct { unsigned long long total, free, used; } memory;
static int cards[2] = {0, 1};
int nvmlInitWithFlags(unsigned int flags) { return 0; }
const char *nvmlErrorString(int error) { return "not supported"; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **card) { *card = &cards[index]; return 0; }
int nvmlDeviceGetName(int *card, char *name, unsigned int length) { strncpy(name, "Tesla T4", length); return 0; }
int nvmlDeviceGetUtilizationRates(int *card, utilization *said) { said->gpu = 80 + *card; said->memory = 9; return 0; }
int nvmlDeviceGetMemoryInfo(int *card, memory *said) { said->total = 16ull << 30; said->used = 13ull << 30; return 0; }
int nvmlDeviceGetTemperature(int *card, int kind, unsigned int *said) { *said = 70 + *card + 1000 * kind; return 0; }
int nvmlDeviceGetPowerUsage(int *card, unsigned int *milliwatts) { *milliwatts = 64500; return *card ? 3 : 0; }
"""
ASK = """
import sys
from prometheus_client import CollectorRegistry, generate_latest
from workers.gpu import find_gpus
registry = CollectorRegistry()
registry.register(find_gpus())
print(generate_latest(registry).decode())
print(*find_gpus().names(), sep=", ", file=sys.stderr)
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler to make the stand-in with")
def test_each_card_is_told_in_base_units(tmp_path: Path) -> None:
    source = tmp_path / "driver.c"
    source.write_text(DRIVER)
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "Tesla T4, Tesla T4\n"
    found = {
        (sample.name.removeprefix("inferq_gpu_"), sample.labels["gpu"]): sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
    }
    assert found == {
        ("utilization_ratio", "0"): 0.8,
        ("utilization_ratio", "1"): 0.81,
        ("memory_used_bytes", "0"): 13 * 2**30,
        ("memory_used_bytes", "1"): 13 * 2**30,
        ("memory_total_bytes", "0"): 16 * 2**30,
        ("memory_total_bytes", "1"): 16 * 2**30,
        ("temperature_celsius", "0"): 70,
        ("temperature_celsius", "1"): 71,
        ("power_watts", "0"): 64.5,
    }


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_a_machine_without_a_driver_has_none() -> None:
    assert find_gpus() is None
