"""What training costs on a GPU: one call, one table, each figure beside what to compare it with.

    python benchmarks/gpu.py [--device cuda] [--quick] [--minutes 7] [--json FILE]

Needs no Ray and no installation: it runs from a checkout. What needs a package that is missing is
left out by name; when the time is nearly up, the rest is, and what was measured is shown.

- images per second of ResNet-50 and MobileNetV2 at 224 pixels in bfloat16, alone and in a pack of
  5 (each ticket's images counted), by the loop and its compiled form, from one batch on the device
  and from shards, and how long compiling takes;
- how busy the GPU is meanwhile, by NVML;
- ResNet-20 at batch 128, fused against loop for 5 and 20 tickets, also compiled, and seconds per
  ticket for an epoch of 50,000 images;
- the share of a step that masking takes;
- whether training that was stopped and resumed has the bits of training that was not.

torch is set up as in a trial: kernels of fixed order, none chosen by timing. `--quick` has tiny
sizes, to see that everything runs; its figures say nothing.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from itertools import chain
from os import cpu_count
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[1]
NEEDED = ("torch", "torchvision", "numpy", "pydantic", "yaml", "safetensors", "psutil")
NEEDED_FOR_SHARDS = ("pyarrow", "simplejpeg", "PIL")
NEEDED_FOR_USE = ("pynvml",)

Row = dict[str, Any]
Measurement = partial[list[Row]]


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    arguments.add_argument("--quick", action="store_true", help="tiny sizes")
    arguments.add_argument("--minutes", type=float, default=7.0, help="begin no row after these")
    arguments.add_argument("--json", help="where to write the figures")
    options = arguments.parse_args()
    started = time.monotonic()
    sys.path.insert(0, str(CHECKOUT))
    missing = [
        name for name in (*NEEDED, *NEEDED_FOR_SHARDS, *NEEDED_FOR_USE) if find_spec(name) is None
    ]
    print(f"missing packages: {', '.join(missing) or 'none'}")
    if lacking := [name for name in NEEDED if name in missing]:
        sys.exit(f"nothing can be measured without {', '.join(lacking)}")
    with tempfile.TemporaryDirectory(prefix="ltray-benchmark-") as folder:
        rows = measured(options, missing, Path(folder), started + 60 * options.minutes)
    show(rows, missing, time.monotonic() - started, options)


def measured(
    options: argparse.Namespace, missing: list[str], folder: Path, end: float
) -> list[Row]:
    """The rows of every measurement that began before `end`, in seconds of the monotonic clock."""
    from gpu_training import FULL, QUICK, of_large, of_small_and_shares

    from ltray.training.place import this_place

    warnings.simplefilter("once")
    place = this_place(gpus=int(options.device == "cuda"), threads=cpu_count() or 1)
    if place.device.type != options.device:
        sys.exit("torch finds no GPU; --device cpu --quick shows that everything runs")
    sizes = QUICK if options.quick else FULL
    measurements = [of_large(sizes, place.device), of_small_and_shares(sizes, place.device)]
    if any(name in missing for name in NEEDED_FOR_SHARDS):
        print(f"left out, since packages are missing: all rows from shards ({NEEDED_FOR_SHARDS})")
    else:
        from gpu_shards import from_shards

        measurements.insert(1, from_shards(sizes, place, folder))
    return list(rows_until(end, chain(*measurements)))


def rows_until(end: float, measurements: Iterator[Measurement]) -> Iterator[Row]:
    """One measurement after the other; one that fails costs its own rows only."""
    for measurement in measurements:
        if time.monotonic() > end:
            print("the time is up: what follows is not measured")
            return
        began = time.monotonic()
        try:
            rows = measurement()
        except Exception as error:  # noqa: BLE001 (out of memory, a kernel that torch lacks, ...)
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            name = f"{measurement.func.__name__} {measurement.args[:2]}"
            rows = [{"row": name, "ours": None, "unit": "failed", "anchor": reason}]
        for row in rows:
            print(f"  {time.monotonic() - began:5.1f} s  {row['row']}: {row['ours']}", flush=True)
        yield from rows
        empty_cache()


def empty_cache() -> None:
    """Give the next measurement all of the GPU's memory."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def show(rows: list[Row], missing: list[str], seconds: float, options: argparse.Namespace) -> None:
    """Print the table, and write all that is known."""
    import torch
    from measuring import conditions, print_table, write_json

    if not rows:
        sys.exit("nothing was measured")
    print_table([{name: row[name] for name in ("row", "ours", "unit", "anchor")} for row in rows])
    for note in dict.fromkeys(row["note"] for row in rows if "note" in row):
        print(f"  {note}")
    for row in rows:
        for name, spread in row.get("largest_differences", {}).items():
            print(f"  {row['row']}: {name} differs by up to {spread:g}")
    where = conditions("torch", "torchvision", "numpy")
    where["device"] = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    where |= {"seconds": seconds, "quick": options.quick, "missing": missing}
    print(where)
    write_json(options.json, {"rows": rows, "where": where})


if __name__ == "__main__":
    main()
