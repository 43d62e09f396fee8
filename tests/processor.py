"""What the processor under the tests can do."""

from pathlib import Path

import pytest

needs_avx512 = pytest.mark.skipif(
    "avx512f" not in Path("/proc/cpuinfo").read_text(), reason="vLLM's AWQ kernels for CPUs need AVX-512"
)
