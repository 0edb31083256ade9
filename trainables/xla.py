"""Xla: torch_xla behind the interface of a Device, the only file that imports it.

torch_xla ends with 2.9.0, which needs torch 2.9.0: constraints-tpu.txt pins both.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from trainables.device import Device


@final
class Xla(Device):
    """torch_xla: a TPU chip, the chips of a host, or of a slice; for tests, its CPU runtime (PJRT_DEVICE=CPU).

    A process that sees one chip uses it as it is. One that sees several, or that is one of several, runs SPMD: every
    process runs the same program on the whole batch, and the compiler spreads it over all chips, so batch-wide losses
    are exact without a word about workers. torch_xla is imported by the first call that needs it, never by the import of
    this module: libtpu belongs to one process at a time.
    """

    name = "xla"
    captures = True

    @property
    def torch_device(self) -> torch.device:
        import torch_xla

        device: torch.device = torch_xla.device()
        return device

    @cached_property
    def _is_spmd(self) -> bool:
        if os.environ.get("PJRT_DEVICE") == "CPU":
            return os.environ.get("CPU_NUM_DEVICES", "1") != "1"
        return os.environ.get("TPU_CHIPS_PER_PROCESS_BOUNDS") != "1,1,1"

    @cached_property
    def _mesh(self) -> Any:
        import numpy
        import torch_xla.distributed.spmd as spmd
        import torch_xla.runtime

        count = torch_xla.runtime.global_runtime_device_count()
        return spmd.Mesh(numpy.arange(count), (count,), ("rows",))

    def settle(self) -> None:
        import torch_xla.backends
        import torch_xla.runtime

        if self._is_spmd:
            torch_xla.runtime.use_spmd()
        # A TPU multiplies float32 in bfloat16 unless it is told otherwise.
        if torch_xla.backends.get_mat_mul_precision() != "highest":
            torch_xla.backends.set_mat_mul_precision("highest")
        if os.environ.get("PJRT_DEVICE") != "CPU":  # there (2.9) graphs are written and never found again
            folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kdsweep" / "xla"
            torch_xla.runtime.initialize_cache(str(folder))
        # Autograd counts the devices once, at the first backward of the process, and a runtime that has not started has none.
        torch_xla.runtime.global_runtime_device_count()

    def seed(self, seed: int) -> None:
        import torch_xla

        torch.default_generator.manual_seed(seed)
        torch_xla.manual_seed(seed)

    @contextlib.contextmanager
    def generators_kept(self) -> Iterator[None]:
        import torch_xla.core.xla_model as model

        state, here = torch.get_rng_state(), model.get_rng_state()
        try:
            yield
        finally:
            torch.set_rng_state(state)
            model.set_rng_state(here)

    def boundary(self) -> None:
        import torch_xla

        torch_xla.sync()

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError | torch.OutOfMemoryError) or "RESOURCE_EXHAUSTED" in str(error)

    def peak_memory(self) -> int:
        import torch_xla.core.xla_model as model

        try:
            return int(model.get_memory_info(self.torch_device)["peak_bytes_used"])
        except RuntimeError:  # the CPU runtime does not count
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def compilations(self) -> int:
        import torch_xla.debug.metrics as metrics

        return metrics.counter_value("UncachedCompile") or 0

    @property
    def rank(self) -> int:
        return 0

    @property
    def size(self) -> int:
        return 1

    @property
    def processes(self) -> int:
        import torch_xla.runtime

        return int(torch_xla.runtime.process_count())

    @property
    def is_first(self) -> bool:
        import torch_xla.runtime

        return int(torch_xla.runtime.process_index()) == 0

    @property
    def count(self) -> int:
        import torch_xla.runtime

        return int(torch_xla.runtime.global_runtime_device_count())

    @property
    def pieces(self) -> int:
        return self.count if self._is_spmd else 1

    def unbound(self, table: Tensor) -> tuple[Tensor, ...]:
        import torch_xla.core.xla_model as model

        # Slices of one tensor on the device would be a graph each.
        return tuple(model.send_cpu_data_to_device(list(table.contiguous().unbind()), self.torch_device))

    def spread(self, rows: Tensor) -> Tensor:
        return self._placed(rows, ("rows",)) if self._is_spmd else rows

    def everywhere(self, rows: Tensor) -> Tensor:
        if not self._is_spmd:
            return rows
        # A product, since a clone keeps the place of the original; of bool it would be a number.
        return self._placed(rows & True if rows.dtype == torch.bool else rows * 1, ())

    def whole(self, share: Tensor, length: int) -> Tensor:
        # Every device compares all rows by itself, there and back. Left to divide rows that do not come out even, XLA's partitioner
        # (2.9) ends the process: to fill up row numbers, which are int64, it takes a zero of int32 (CRD's index_add_, DiffKD's table).
        found = self.everywhere(share[:length])
        if found.requires_grad:
            found.register_hook(self.everywhere)  # type: ignore[no-untyped-call] # torch does not annotate it
        return found

    def gathered(self, value: int) -> tuple[int, ...]:
        # Every process fills the pieces of its own devices.
        if not self._is_spmd:
            return (value,)
        mine = torch.full((self.count,), value, dtype=torch.int32).to(self.torch_device)
        return tuple(self.everywhere(self.spread(mine)).tolist())

    def _placed(self, tensor: Tensor, leading: tuple[str, ...]) -> Tensor:
        import torch_xla.distributed.spmd as spmd

        spmd.mark_sharding(tensor, self._mesh, leading + (None,) * (tensor.dim() - len(leading)))
        return tensor
