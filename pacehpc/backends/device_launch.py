"""Launches of kernels on a stream: blocks that suit the work, ranges for a profiler, times by events of the device."""

from __future__ import annotations

from typing import Any

from pacehpc.backends.source import LANES

BLOCK, MOMENT_BLOCK = 128, 256  # threads
BLOCKS_PER_MULTIPROCESSOR = 16


class Launcher:
    """Queues the kernels of a module."""

    def __init__(
        self, cupy: Any, module: Any, stream: Any, multiprocessors: int, block: int | None, profile: bool
    ) -> None:
        """block: threads per block, None for the usual number; profile: NVTX ranges."""
        self.cupy, self.module, self.stream, self.profile = cupy, module, stream, profile
        self.multiprocessors = multiprocessors
        self.block = block or BLOCK
        self.moment_block = min(self.block, MOMENT_BLOCK) if self.block < BLOCK else MOMENT_BLOCK
        self.most_blocks = BLOCKS_PER_MULTIPROCESSOR * multiprocessors
        self.timed: dict[str, float] | None = None
        """Seconds of each kernel while they are timed."""
        self._kernels: dict[str, Any] = {}

    def __call__(self, name: str, threads: int, *arguments: Any, block: int | None = None) -> None:
        """Queue a kernel with a thread for each of `threads` items, or fewer that take several."""
        block = block or self._block_for(threads)
        grid = int(max(1, min(-(-int(threads) // block), self.most_blocks)))
        kernel = self._kernels.get(name)
        if kernel is None:
            kernel = self._kernels[name] = self.module.get_function(name)
        if self.profile:
            self.cupy.cuda.nvtx.RangePush(name)
        if self.timed is None:
            kernel((grid,), (block,), arguments)
        else:
            begin, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
            begin.record(self.stream)
            kernel((grid,), (block,), arguments)
            end.record(self.stream)
            end.synchronize()
            seconds = self.cupy.cuda.get_elapsed_time(begin, end) / 1000
            self.timed[name] = self.timed.get(name, 0.0) + seconds
        if self.profile:
            self.cupy.cuda.nvtx.RangePop()

    def _block_for(self, threads: int) -> int:
        """Threads of a block: fewer where there is so little to do that multiprocessors would have none."""
        block = self.block
        while block > LANES and threads <= block // 2 * self.multiprocessors:
            block //= 2
        return block
