"""Device: what a training asks of the machine it runs on. CPU and GPU are here, torch_xla in ``trainables.xla``; nothing else knows one from another.

A successor of torch_xla is one more such file and one more name in ``device_named``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import resource
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor

from search_spaces import nearest

NAMES = ("auto", "cpu", "cuda", "xla")
_ZIP = b"PK"
"""How a file that torch saves begins. Anything else would go to torch's reader for files of before 2020."""


def seed_of(*parts: int | str) -> int:
    """A seed in [0, 2**63) that differs wherever any part differs: streams with neighbouring parts share nothing."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Device(ABC):
    """Where tensors live, how a step ends there, and how workers that share a batch add up.

    Workers are processes that take a share of every batch each: those of torch.distributed's default group; without one
    there is a single worker of rank 0. Where several processes run one program over all their devices instead (SPMD),
    there is a single worker too, of several ``processes``.
    """

    name: str
    fuses: bool = False
    """Whether torch's optimisers have their one-kernel form here."""
    is_host: bool = False
    """Whether tensors here lie in the memory of the host."""
    picture_format: torch.memory_format = torch.contiguous_format
    """How batches of pictures lie in memory. With channels last, convolutions of a processor take two thirds of the time."""
    captures: bool = False
    """Whether operations are recorded into a graph, so that whatever changes from step to step must lie on the device."""

    @property
    @abstractmethod
    def torch_device(self) -> torch.device:
        """Where tensors are put."""

    @abstractmethod
    def settle(self) -> None:
        """Settings of the whole process that make numbers repeatable here. Called once, by whoever hosts trainings."""

    @abstractmethod
    def seed(self, seed: int) -> None:
        """Seed the global generators that operations here draw from."""

    @abstractmethod
    def generators_kept(self) -> contextlib.AbstractContextManager[None]:
        """Within it the global generators may be seeded and drawn from; behind it they are as before."""

    @abstractmethod
    def boundary(self) -> None:
        """End of a training step: where operations are collected into a graph, it is cut here."""

    @abstractmethod
    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an exception says that memory ran out."""

    @abstractmethod
    def peak_memory(self) -> int:
        """Most bytes held so far."""

    @abstractmethod
    def compilations(self) -> int:
        """Graphs compiled so far."""

    @property
    def rank(self) -> int:
        """This worker's number."""
        return torch.distributed.get_rank() if _is_distributed() else 0

    @property
    def size(self) -> int:
        """How many workers share a batch."""
        return torch.distributed.get_world_size() if _is_distributed() else 1

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return self.size

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes what all of them have."""
        return self.rank == 0

    @property
    def count(self) -> int:
        """Devices that all processes hold together."""
        return self.size

    @property
    def pieces(self) -> int:
        """Into how many equal pieces the rows of a worker's batch must be divisible."""
        return 1

    def unbound(self, table: Tensor) -> tuple[Tensor, ...]:
        """The rows of a table on the host, each a tensor of its own on the device: (S, ...) -> S times (...)."""
        return table.contiguous().to(self.torch_device).unbind()

    def sent(self, rows: Tensor) -> Tensor:
        """A tensor on the host that nobody changes any more -> on the device, while the host goes on where it can."""
        return rows.to(self.torch_device)

    def spread(self, rows: Tensor) -> Tensor:
        """(B, ...) with its rows over the devices of a worker, where it has several."""
        return rows

    def everywhere(self, rows: Tensor) -> Tensor:
        """The opposite of ``spread``: all of it on every device, from where the host can read it too."""
        return rows

    def gathered(self, value: int) -> tuple[int, ...]:
        """A value of every process, one that differs from theirs included. Processes meet here."""
        return tuple(self.all_gather(torch.tensor([value], device=self.torch_device)).tolist())

    def all_reduce_sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor, in place, by its sum over workers; one message for all of them."""
        if self.size == 1 or not tensors:
            return
        whole = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(whole)
        for tensor, summed in zip(tensors, torch.split(whole, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))

    def all_gather(self, tensor: Tensor) -> Tensor:
        """(B, ...) of every worker, joined in the order of their ranks: (size * B, ...). B is the same everywhere."""
        if self.size == 1:
            return tensor
        return torch.cat(self._parts(tensor))

    def whole(self, share: Tensor, length: int) -> Tensor:
        """A worker's share of a batch -> the batch in its own order, with gradient to the share alone: (B, ...) -> (length, ...).

        Summed over workers, gradients of a function of the whole batch are then what one worker would have. What fills up the
        batch for workers to have equal shares, beyond its length, is left out.
        """
        if self.size == 1:
            return share[:length]
        parts = self._parts(share.detach())
        parts[self.rank] = share
        # Worker r has every size-th row, from the r-th on.
        return torch.stack(parts, dim=1).flatten(0, 1)[:length]

    def _parts(self, tensor: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        torch.distributed.all_gather(parts, tensor.contiguous())
        return parts

    @final
    def to_bytes(self, state: Any) -> bytes:
        """Tensors in dicts, lists and tuples, with plain values between them, as bytes that any device reads."""
        buffer = io.BytesIO()
        self.boundary()
        torch.save(self._on_cpu(state), buffer)
        return buffer.getvalue()

    @final
    def from_bytes(self, data: bytes) -> Any:
        """What ``to_bytes`` was given, tensors on the CPU. Code in the bytes is never run.

        Raises:
            ValueError: the bytes are something else, or were cut off.
        """
        need = f"Reading tensors needs the bytes of a whole file that torch saved, but got {len(data)} bytes"
        if not data.startswith(_ZIP):
            raise ValueError(f"{need} of something else.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what torch says of files that it refuses
                return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:  # of what readers make of bytes that were made to break them there is no end
            # Not torch's own words: they advise to read the file without this protection.
            raise ValueError(f"{need} that hold something else than tensors, or only a part ({type(error).__name__}).") from error

    def _on_cpu(self, state: Any) -> Any:
        if isinstance(state, Tensor):
            # A slice would be saved with everything it was cut from.
            return self.everywhere(state.detach()).cpu().clone()
        if isinstance(state, dict):
            return {key: self._on_cpu(value) for key, value in state.items()}
        if isinstance(state, list | tuple):
            return type(state)(self._on_cpu(value) for value in state)
        return state


@final
class Cpu(Device):
    """The processor, one thread per worker."""

    name = "cpu"
    fuses = True
    is_host = True
    picture_format = torch.channels_last

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cpu")

    def settle(self) -> None:
        # Sums over threads depend on how many there are; with one, a laptop and a worker agree to the last bit.
        torch.set_num_threads(1)

    def seed(self, seed: int) -> None:
        # Not torch.manual_seed: without a GPU it queues a note for one, with a stack trace, at every call.
        torch.default_generator.manual_seed(seed)

    @contextlib.contextmanager
    def generators_kept(self) -> Iterator[None]:
        state = torch.get_rng_state()
        try:
            yield
        finally:
            torch.set_rng_state(state)

    def boundary(self) -> None:
        pass

    def is_out_of_memory(self, error: BaseException) -> bool:
        # torch's CPU allocator has no exception of its own.
        return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)

    def peak_memory(self) -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def compilations(self) -> int:
        return 0


@final
class Cuda(Device):
    """The current NVIDIA GPU of this process."""

    name = "cuda"
    fuses = True
    picture_format = torch.channels_last

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cuda", torch.cuda.current_device())

    def settle(self) -> None:
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True

    def sent(self, rows: Tensor) -> Tensor:
        return rows.pin_memory().to(self.torch_device, non_blocking=True)

    def seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    @contextlib.contextmanager
    def generators_kept(self) -> Iterator[None]:
        state, here = torch.get_rng_state(), torch.cuda.get_rng_state()
        try:
            yield
        finally:
            torch.set_rng_state(state)
            torch.cuda.set_rng_state(here)

    def boundary(self) -> None:
        pass

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError | torch.OutOfMemoryError)

    def peak_memory(self) -> int:
        return torch.cuda.max_memory_allocated()

    def compilations(self) -> int:
        return 0


def device_named(name: str) -> Device:
    """The device of a name; "auto" is cuda where there is one, else cpu. Nothing is initialised.

    Raises:
        ValueError: unknown name, or a device that is not here.
    """
    if name not in NAMES:
        raise ValueError(f"Device needs one of {', '.join(NAMES)}, but got device={name!r}.{nearest(name, NAMES)}")
    if name == "auto":
        return Cuda() if torch.cuda.is_available() else Cpu()
    if name == "cuda":
        if not torch.cuda.is_available():
            raise ValueError("Device needs a GPU that torch can use, but got device='cuda'. Use device='cpu' or 'auto'.")
        return Cuda()
    if name == "xla":
        if importlib.util.find_spec("torch_xla") is None:
            raise ValueError(
                "Device needs torch_xla, which is not installed, but got device='xla'. Install kdsweep[tpu] with constraints-tpu.txt."
            )
        from trainables.xla import Xla  # which imports this module

        return Xla()
    return Cpu()


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
