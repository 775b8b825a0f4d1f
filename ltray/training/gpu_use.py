"""How busy a trial's GPUs are while it trains, and how much of their memory is taken, by NVML."""

import warnings
from collections.abc import Sequence
from threading import Event, Lock, Thread
from typing import Self

READ_EVERY_SECONDS = 1.0

Columns = dict[str, float | int | None]


class GpuUse:
    """Reads GPUs about once a second while it is open; on a CPU there is nothing to read.

    It may be opened again: readings add up. Where one fails, a warning says why, once; training
    goes on, and the columns are empty from then on.

    Args:
        uuids: of the GPUs, as `Place.gpu_uuids` has them; none on a CPU.
    """

    def __init__(self, uuids: Sequence[str]) -> None:
        self._uuids = uuids
        self._gpus: list[_Gpu] = []
        self._problem: Exception | None = None
        self._warned = False
        self._lock = Lock()
        self._readings = 0
        self._utilisation_sum = 0.0
        self._most_bytes = 0

    def __enter__(self) -> Self:
        if self._uuids and self._problem is None:
            try:
                for uuid in self._uuids:
                    self._gpus.append(_Gpu(uuid))
            except Exception as problem:  # noqa: BLE001 (whatever it is, training can go on)
                self._problem = problem
                self._close()
            else:
                self._end = Event()
                self._thread = Thread(target=self._watch, daemon=True)
                self._thread.start()
        self._warn()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._gpus:
            self._end.set()
            self._thread.join()
            self._close()

    def columns(self) -> Columns:
        """gpu_utilisation, the mean in [0, 1], and gpu_memory_bytes, the most; None if unknown.

        Both are of whole devices, with what others do there; bytes are those of all together.
        """
        if self._gpus and not self._readings:  # it has trained for less than a second
            self._read()
        self._warn()
        known = self._readings > 0 and self._problem is None
        with self._lock:
            return {
                "gpu_utilisation": self._utilisation_sum / self._readings if known else None,
                "gpu_memory_bytes": self._most_bytes if known else None,
            }

    def _watch(self) -> None:
        while self._problem is None and not self._end.wait(READ_EVERY_SECONDS):
            self._read()

    def _read(self) -> None:
        try:
            utilisations, used_bytes = zip(*(gpu.read() for gpu in self._gpus), strict=True)
        except Exception as problem:  # noqa: BLE001 (as above)
            self._problem = problem
            return
        with self._lock:
            self._readings += 1
            self._utilisation_sum += sum(utilisations) / len(utilisations)
            self._most_bytes = max(self._most_bytes, sum(used_bytes))

    def _close(self) -> None:
        for gpu in self._gpus:
            gpu.close()
        self._gpus = []

    def _warn(self) -> None:
        """Say once, on the thread that trains, why there are no figures."""
        if self._problem is not None and not self._warned:
            self._warned = True
            reason = f"{type(self._problem).__name__}: {self._problem}"
            what = f"NVML could not read {', '.join(self._uuids)}: {reason}"
            warnings.warn(
                f"{what}; gpu_utilisation and gpu_memory_bytes stay empty",
                RuntimeWarning,
                stacklevel=3,
            )


class _Gpu:
    """A GPU as NVML knows it: by its UUID, since NVML's numbers know no CUDA_VISIBLE_DEVICES."""

    def __init__(self, uuid: str) -> None:
        import pynvml  # only where there is a GPU

        self._nvml = pynvml
        self._nvml.nvmlInit()
        try:
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError:
            self.close()
            raise

    def read(self) -> tuple[float, int]:
        """The share of the last second or less in which it computed, and the bytes in use."""
        percent = self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu
        return percent / 100, int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)

    def close(self) -> None:
        self._nvml.nvmlShutdown()
