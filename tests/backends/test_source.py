"""The CUDA text that is compiled."""

from __future__ import annotations

import re

from pacehpc.backends.records import record
from pacehpc.backends.source import cuda_source, kernel_names


def test_source_is_one_text():
    text = cuda_source("#define ND 1\n")
    assert '#include "' not in text and re.findall(r"atomic[A-Z]\w*", text) == ["atomicAdd", "atomicMax"]  # of integers
    assert len(kernel_names()) == text.count("\nKERNEL(") + 1
    assert record("Problem").names[0] == "n_elements" and record("Work").itemsize > 0
