"""Batches through the model: copies, computation and writing overlap."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from seqmill.engine import memory
from seqmill.engine.batching import filler
from seqmill.engine.outbox import Outbox, places, room
from seqmill.kernels.packing import Batch
from seqmill.models.family import Model
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.representations import REPRESENTATIONS

log = logging.getLogger(__name__)

# Batches queued on the GPU while the results of the one before are fetched. One is enough except for small models,
# whose batches take a GPU less time than the host sometimes needs between two.
QUEUED = 2
TRIM_EVERY = 16


@dataclass(frozen=True)
class BatchResult:
    """One batch's results on the host: dataset name to array, for the batch's rows of the shard.

    The arrays may be used until the function that writes them returns; then their memory is used again.
    """

    batch: Batch
    values: dict[str, np.ndarray]


@dataclass
class InFlight:
    """A batch on its way through the GPU. Holding on to its tensors keeps their memory from being used again.

    Attributes:
        sums: (datasets per token,) float32; each is finite only if its values are, or if these are beyond belief.
    """

    batch: Batch
    inputs: Batch
    outputs: dict[str, torch.Tensor]
    sums: torch.Tensor | None
    started: Any
    forwarded: Any
    done: Any


@dataclass
class Timing:
    """Where the time went, in seconds, from the first batch's request to the last one's written rows.

    On a GPU `forward_s` (the model), `compute_s` (pooling included) and `gpu_idle_s` (between batches) are measured by
    events on the compute stream; on the CPU they stay zero. `first_batch_s`, until the first batch is computed, is measured
    so, too: its results are fetched later, when more batches are queued. `writing_s` is how long rows were being written.
    """

    steady_s: float = 0.0
    first_batch_s: float = 0.0
    forward_s: float = 0.0
    compute_s: float = 0.0
    gpu_idle_s: float = 0.0
    waited_for_reader_s: float = 0.0
    waited_for_writer_s: float = 0.0
    writing_s: float = 0.0
    batches: int = 0
    tokens: int = 0


class NotFinite(Exception):
    """An embedding holds NaN or infinity.

    Attributes:
        dataset, row: which result, and which row of the shard.
        dtype: what it is stored in, where it is finite in what it is computed in.
    """

    def __init__(self, dataset: str, row: int, dtype: str | None = None):
        super().__init__(f"row {row} of {dataset} is not finite")
        self.dataset, self.row, self.dtype = dataset, row, dtype


class Pipeline:
    """Feeds batches to the model on one device.

    Args:
        datasets: what to compute.
        streams: 2 uses one stream to compute and one to copy; 3 copies in and out on streams of their own.
        pin_memory: copy results into pinned memory, so that the copy overlaps with computing; those with a row per token
            are in any case.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device,
        datasets: Sequence[Dataset],
        streams: int = 3,
        pin_memory: bool = False,
    ):
        self.model = model
        self.device = device
        self.datasets = datasets
        self.layers = sorted({dataset.layer for dataset in datasets})
        self.pin_memory = pin_memory and device.type == "cuda"
        self.per_token = [dataset.name for dataset in datasets if dataset.is_per_token]
        self.has_ring = device.type == "cuda" and bool(self.per_token)
        # PyTorch's CPU backend has streams and events that do nothing, so one code serves both.
        self.backend = torch.get_device_module(device)
        self.compute, self.copy_in = self.backend.Stream(), self.backend.Stream()
        self.copy_out = self.backend.Stream() if streams > 2 else self.copy_in
        # A CPU has computed a batch when `submit` returns: nothing is gained by keeping it.
        self.queued = QUEUED if device.type == "cuda" else 0
        self.timing = Timing()
        self.current: Batch | None = None
        self._last_done: Any = None

    @torch.inference_mode()
    def submit(self, batch: Batch) -> InFlight:
        """Queue a batch's copy and computation; returns before they are done."""
        self.current = batch
        with self.backend.stream(self.copy_in):
            self._trace("copy in", self.copy_in, batch)
            inputs = batch.to(self.device)
        self.compute.wait_stream(self.copy_in)
        started, forwarded, done = self._event(), self._event(), self._event()
        with self.backend.stream(self.compute):
            self._trace("compute", self.compute, batch)
            started.record(self.compute)
            states = self.model(inputs, self.layers)
            forwarded.record(self.compute)
            outputs = {dataset.name: self._represent(dataset, states, inputs) for dataset in self.datasets}
            # What is large is read once more where it is; what is small is looked at on the host.
            sums = [outputs[name].sum(dtype=torch.float32) for name in self.per_token]
            all_sums = torch.stack(sums) if sums else None
            done.record(self.compute)
        return InFlight(batch, inputs, outputs, all_sums, started, forwarded, done)

    def _represent(self, dataset: Dataset, states: dict[int, torch.Tensor], inputs: Batch) -> torch.Tensor:
        """A dataset's values for a batch: per token in the dtype in which they are stored, for HDF5 has none for bfloat16."""
        compute = REPRESENTATIONS[dataset.representation].compute
        stored = torch.float16 if dataset.is_per_token and dataset.dtype == np.float16 else torch.float32
        return compute(states[dataset.layer], inputs, self.model.kernels.operators).to(stored)

    def collect(self, flight: InFlight, outbox: Outbox | None = None) -> BatchResult:
        """Wait for a batch and copy its results to the host.

        Args:
            outbox: where they will be put, and whose memory they take.

        Raises:
            NotFinite: a result holds NaN or infinity.
        """
        self.current = flight.batch
        # First the event: whatever went wrong on the GPU surfaces here and belongs to this batch.
        flight.done.synchronize()
        memory = None
        if outbox is not None:
            with self._waiting("waited_for_writer_s"):
                memory = outbox.reserve(room(flight.outputs))
        with self.backend.stream(self.copy_out):
            self._trace("copy out", self.copy_out, flight.batch)
            values = self._to_host(flight.outputs, memory)
            sums = None if flight.sums is None else flight.sums.cpu()
            copied = self._event()
            copied.record(self.copy_out)
        copied.synchronize()
        result = BatchResult(flight.batch, {name: value.numpy() for name, value in values.items()})
        self._check_finite(result, sums)
        return result

    def _check_finite(self, result: BatchResult, sums: torch.Tensor | None) -> None:
        is_finite = sums is None or bool(sums.isfinite().all())
        if is_finite and all(np.isfinite(v).all() for name, v in result.values.items() if name not in self.per_token):
            return
        if (error := _not_finite(result, self.datasets)) is not None:
            raise error

    def run(
        self, batches: Iterable[Batch], write: Callable[[BatchResult], None], progress: Callable[[Batch], None]
    ) -> None:
        """Run all batches; on a GPU QUEUED more are always queued before the results of one are waited for.

        Args:
            write: takes each batch's results, in order, on a thread of its own. After a failure it gets no more.
            progress: called with each finished batch.
        """
        begun, start = time.perf_counter(), self._event()
        start.record(self.compute)
        flights: deque[InFlight] = deque()

        def finish(flight: InFlight) -> None:
            result = self.collect(flight, outbox)
            self._count(flight)
            if self.timing.batches == 1:
                on_gpu = self.device.type == "cuda"
                self.timing.first_batch_s = (
                    start.elapsed_time(flight.done) / 1e3 if on_gpu else time.perf_counter() - begun
                )
            outbox.put(result)
            progress(flight.batch)

        with Outbox(write, self.has_ring) as outbox:
            for batch in self._timed(batches):
                flights.append(self.submit(batch))
                if len(flights) > self.queued:
                    finish(flights.popleft())
            while flights:
                finish(flights.popleft())
            with self._waiting("waited_for_writer_s"):
                outbox.finish()
        self.timing.writing_s = outbox.busy_s
        self.timing.steady_s = time.perf_counter() - begun

    def probe(self, tokens: int) -> None:
        """Compute batches of `tokens` tokens, as many in flight at once as in `run`: for measuring memory."""
        batch = filler(tokens, self.model.tokenizer)
        try:
            for flight in [self.submit(batch) for _ in range(self.queued + 1)]:
                # Filler may overflow; only memory counts here.
                with suppress(NotFinite):
                    self.collect(flight)
        finally:
            # What ran out of memory here was not a batch of the shard.
            self.current = None

    def seconds(self, batch: Batch) -> float:
        """How long the GPU takes for a batch, whose results are dropped."""
        try:
            flight = self.submit(batch)
            flight.done.synchronize()
        finally:
            self.current = None
        return flight.started.elapsed_time(flight.done) / 1e3

    def _count(self, flight: InFlight) -> None:
        timing = self.timing
        timing.batches += 1
        timing.tokens += int(flight.batch.token_counts.sum())
        if self.device.type != "cuda":
            return
        timing.forward_s += flight.started.elapsed_time(flight.forwarded) / 1e3
        timing.compute_s += flight.started.elapsed_time(flight.done) / 1e3
        if self._last_done is not None:
            timing.gpu_idle_s += self._last_done.elapsed_time(flight.started) / 1e3
        self._last_done = flight.done
        if timing.batches % TRIM_EVERY == 0:
            memory.trim(self.device)

    def _timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        iterator = iter(batches)
        while True:
            with self._waiting("waited_for_reader_s"):
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch

    @contextmanager
    def _waiting(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        setattr(self.timing, name, getattr(self.timing, name) + time.perf_counter() - begun)

    def _event(self) -> Any:
        return torch.cuda.Event(enable_timing=True) if self.device.type == "cuda" else self.backend.Event()

    def _to_host(self, outputs: dict[str, torch.Tensor], memory: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Results on the host, in `memory` if there is any; in pinned memory they are on their way."""
        if memory is not None:
            copies = places(memory, outputs)
        elif self.pin_memory:
            copies = {name: torch.empty(v.shape, dtype=v.dtype, pin_memory=True) for name, v in outputs.items()}
        else:
            return {name: values.cpu() for name, values in outputs.items()}
        return {name: copy.copy_(outputs[name], non_blocking=True) for name, copy in copies.items()}

    def _trace(self, operation: str, stream: Any, batch: Batch) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("stream %s, batch %d: %s", getattr(stream, "stream_id", "cpu"), batch.index, operation)


def _not_finite(result: BatchResult, datasets: Sequence[Dataset]) -> NotFinite | None:
    """The first sequence of a batch with a value that is not finite, per dataset in turn; None if all are."""
    for dataset in datasets:
        bad = np.flatnonzero(~np.isfinite(result.values[dataset.name]).all(axis=1))
        if len(bad):
            ends = np.cumsum(dataset.rows(result.batch.content_counts))
            return NotFinite(dataset.name, int(result.batch.rows[np.searchsorted(ends, bad[0], side="right")]))
    return None
