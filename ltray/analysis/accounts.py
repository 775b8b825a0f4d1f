"""What a run cost and ran on: the time of its stages, its work, its machines and versions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from ltray.analysis.columns import Row
from ltray.analysis.wording import duration, listed, quantity

Launch = dict[str, Any]
RETRAININGS = "retrainings"  # the stage in which workers train side by side

TRAINED_ON = {"Trained on": "device", "Nodes": "node", "Backend": "backend"}
"""label -> the column that says it"""


@dataclass(frozen=True)
class Stage:
    """Seconds of one stage; `share` is that of the last launch's longest stage."""

    name: str
    last: float
    total: float
    share: float


def stages(launches: Sequence[Launch]) -> list[Stage]:
    """Every stage that any launch had, in the order in which they first came up."""
    if not launches:
        return []
    names = dict.fromkeys(name for launch in launches for name in launch["stages"])
    last = launches[-1]["stages"]
    longest = max(last.values(), default=0.0) or 1.0
    return [
        Stage(
            name=name,
            last=last.get(name, 0.0),
            total=sum(launch["stages"].get(name, 0.0) for launch in launches),
            share=last.get(name, 0.0) / longest,
        )
        for name in names
    ]


def wall_seconds(launch: Launch) -> float | None:
    """From a launch's start to its end; None where it has not ended, or was killed."""
    if launch.get("finished_at") is None:
        return None
    start, end = (datetime.fromisoformat(launch[key]) for key in ("started_at", "finished_at"))
    return (end - start).total_seconds()


def work(dense: Sequence[Row], done: Sequence[Row]) -> list[str]:
    """Sentences on the training itself, which the stages contain."""
    said = []
    if dense:
        seconds = sum(row["train_seconds"] for row in dense)
        said.append(f"{quantity(len(dense), 'dense run')}: {duration(seconds)} of training.")
    if done:
        seconds = sum(row["train_seconds"] for row in done)
        each = median(row["train_seconds"] for row in done)
        said.append(
            f"{quantity(len(done), 'finished retraining')}: {duration(seconds)} of training one "
            f"after the other, {duration(each)} each (median)."
        )
    speeds = [row["images_per_second"] for row in done if row["images_per_second"] is not None]
    if speeds:
        said.append(f"Training speed: {median(speeds):,.0f} images/s (median over tickets).")
    return said


def machine(launches: Sequence[Launch]) -> str:
    """The machine of the last launch that came to have one, in a line."""
    found = next((launch["machine"] for launch in reversed(launches) if launch["machine"]), None)
    if found is None:
        return "unknown: no launch reached Ray"
    parts = [quantity(found["nodes"], "node"), quantity(found["cpus"], "CPU")]
    if found.get("cpu_name"):
        parts[-1] += f" ({found['cpu_name']})"
    gpus = quantity(found["gpus"], "GPU") if found["gpus"] else "no GPU"
    if found["gpu_names"]:
        gpus += f" ({listed(sorted(set(found['gpu_names'])))})"
    return ", ".join([*parts, gpus])


def counted(rows: Sequence[Row], column: str) -> str:
    """The values of a column, most frequent first: `cpu (99), cuda (1)`; one alone is bare."""
    counts = Counter(row[column] for row in rows if row[column] is not None).most_common()
    if len(counts) == 1:
        return str(counts[0][0])
    return ", ".join(f"{value} ({count})" for value, count in counts)
