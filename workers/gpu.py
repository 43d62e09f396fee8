"""What the NVIDIA driver says of the machine's GPUs, where there is one."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

try:
    import pynvml
except ImportError:  # a worker without a GPU does not install it
    pynvml = None

#: Families by what they say.
_FAMILIES: Final = {
    "utilization_ratio": "Share of the last moments in which a kernel ran.",
    "memory_used_bytes": "Memory in use, whoever uses it.",
    "memory_total_bytes": "Memory there is.",
    "temperature_celsius": "Temperature of the chip.",
    "power_watts": "Power drawn by the card.",
}


class GpuCollector(Collector):
    """Asks the driver at each scrape. What a card does not tell is left out."""

    def __init__(self, library: Any) -> None:
        """``library``: pynvml, initialized."""
        self._library = library

    def names(self) -> list[str]:
        """Return what the cards are called, by index."""
        n = self._library
        return [n.nvmlDeviceGetName(n.nvmlDeviceGetHandleByIndex(index)) for index in range(n.nvmlDeviceGetCount())]

    def collect(self) -> Iterator[Metric]:
        """Yield all families, with a series for each GPU, which is called by its index."""
        n = self._library
        families = {
            name: GaugeMetricFamily(f"inferq_gpu_{name}", says, labels=["gpu"]) for name, says in _FAMILIES.items()
        }
        for index in range(n.nvmlDeviceGetCount()):
            card = n.nvmlDeviceGetHandleByIndex(index)
            for name, ask in self._questions(card).items():
                try:
                    families[name].add_metric([str(index)], ask())
                except n.NVMLError:
                    continue
        yield from families.values()

    def _questions(self, card: Any) -> dict[str, Callable[[], float]]:
        n = self._library
        return {
            "utilization_ratio": lambda: n.nvmlDeviceGetUtilizationRates(card).gpu / 100,
            "memory_used_bytes": lambda: n.nvmlDeviceGetMemoryInfo(card).used,
            "memory_total_bytes": lambda: n.nvmlDeviceGetMemoryInfo(card).total,
            "temperature_celsius": lambda: n.nvmlDeviceGetTemperature(card, n.NVML_TEMPERATURE_GPU),
            "power_watts": lambda: n.nvmlDeviceGetPowerUsage(card) / 1000,
        }

    @staticmethod
    def describe() -> Iterator[Metric]:
        """Yield the families without samples."""
        for name, says in _FAMILIES.items():
            yield GaugeMetricFamily(f"inferq_gpu_{name}", says, labels=["gpu"])


def find_gpus() -> GpuCollector | None:
    """Return a collector; None where there is no driver, or none of its Python binding."""
    if pynvml is None:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return GpuCollector(pynvml)
