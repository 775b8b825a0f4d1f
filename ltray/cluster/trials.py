"""What runs inside a trial: the core's functions, given a place and a way to report."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from ltray.cluster.broken_gpus import GpuBroken, broken_gpus_found
from ltray.cluster.metrics import DENSE, SeeShown, trial_series, unseen
from ltray.cluster.nodes import Demands
from ltray.cluster.notices import Watch, drain_this_node, this_machine
from ltray.errors import LtrayError, MachineLeaves
from ltray.lottery.pairs import Pair
from ltray.lottery.tickets import Pack, TicketKey
from ltray.patience import patiently
from ltray.run import Run

if TYPE_CHECKING:
    from ltray.training.place import Place

SHOWN = (
    "epoch",
    "train_loss",
    "val_top1",
    "val_loss",
    "test_top1",
    "learning_rate",
    "images_per_second",
    "gpu_utilisation",
    "gpu_memory_bytes",
)

HOLDS_EVERY_SECONDS = 10.0

Row = dict[str, Any]
Leaves = Callable[[], str] | None
"""As a place has it."""
Due = Callable[[float], bool]


def dense_trial(config: Row, run: Run, wanted: Demands) -> None:
    """Tune's trainable for one replicate's dense run."""
    from ltray.training.dense import train_dense

    def train(reports: Reports, leaves: Leaves) -> None:
        place = replace(place_of(config, wanted), leaves=leaves)
        train_dense(run, replicate, place, lambda row: reports.add([row], []))

    replicate = config["replicate"]
    with trial_series(run, replicate, DENSE, tickets=1) as see:
        _reporting(train, run, Reports(_due(config), see=see))


def pack_trial(config: Row, run: Run, wanted: Demands, packs: dict[str, Pack]) -> None:
    """Tune's trainable for one pack of tickets."""
    from ltray.training.chain import train_chain
    from ltray.training.retrain import train_pack

    def train(reports: Reports, leaves: Leaves) -> None:
        place = replace(place_of(config, wanted), leaves=leaves)
        train_all = train_chain if pack.in_turn else train_pack
        train_all(run, pack, place, reports.add)

    pack = packs[config["pack"]]
    replicate = pack.tickets[0].replicate
    with trial_series(run, replicate, pack.name, len(pack.tickets)) as see:
        _reporting(train, run, Reports(_due(config), see=see))


def line_trial(config: Row, run: Run, wanted: Demands, pairs: dict[str, Pair]) -> None:
    """Tune's trainable for the line between two copies of a ticket."""
    from ltray.training.error_line import measure_line

    def measure(reports: Reports, _leaves: Leaves) -> None:
        reports.add([], [measure_line(run, pairs[config["line"]], place_of(config, wanted))])

    _reporting(measure, run, Reports(_due(config)))


def _reporting(train: Callable[["Reports", Leaves], None], run: Run, reports: "Reports") -> None:
    """Train until it is done, also where storage fails for a while; nothing said is lost.

    Raises:
        MachineLeaves: so that Tune starts the trial on another node.
    """
    try:
        with watch_this_machine() as watch, broken_gpus_found():
            patiently(partial(train, reports, watch.leaves), run.folder.path)
    except GpuBroken as error:
        reports.flush()
        while True:  # Tune ends this trial; until then it keeps hold of the GPU
            report_error(error)
            time.sleep(HOLDS_EVERY_SECONDS)
    except (LtrayError, MachineLeaves) as error:
        reports.flush()
        report_error(error)
    reports.flush()


def watch_this_machine() -> Watch:
    """For notices of its end, on which Ray places nothing more on it."""
    return Watch(this_machine(), drain_this_node, ray.util.get_node_ip_address())


def report_error(error: BaseException) -> None:
    """Hand an error on: to the driver what it makes something of, and to Tune what comes again.

    Raises:
        BaseException: the error, so that Tune starts the trial again.
    """
    match error:
        case LtrayError():  # it would only come again the same way
            told = {"stage_failed": json.dumps([type(error).__name__, error.args])}
        case GpuBroken():
            told = {"broken": str(error)}
        case MachineLeaves():
            told = {"leaves": str(error)}
        case _:
            raise error
    tune.report({"rows": "[]", "records": "[]", **told})
    if isinstance(error, MachineLeaves):
        raise error


def is_due(sent: float, every_seconds: float) -> bool:
    """Whether it is time for the next report, `sent` being when the last one went off."""
    return time.monotonic() - sent > every_seconds


def _due(config: Row) -> Due:
    return partial(is_due, every_seconds=config["report_every"])


class Reports:
    """Rows on their way to the driver, sent in few messages and never lost at the end.

    Rows travel as JSON text, which Tune's loggers pass over; the plain numbers beside them are
    what TensorBoard and Tune's own tables show.

    Args:
        due: whether it is time for a message, told when the last was sent.
        send: takes one.
        see: is shown each message's plain numbers before it is sent.
    """

    def __init__(
        self,
        due: Due,
        send: Callable[[Row], None] = tune.report,
        see: SeeShown = unseen,
    ) -> None:
        self._send = send
        self._due = due
        self._see = see
        self._rows: list[Row] = []
        self._records: list[Row] = []
        self._ended: set[TicketKey] = set()
        self._sent = time.monotonic()

    def add(self, rows: Sequence[Row], records: Sequence[Row]) -> None:
        self._rows += rows
        self._records += records
        self._ended |= {(one["row"]["replicate"], one["row"]["ticket"]) for one in records}
        if records or self._due(self._sent):
            self.flush()

    def flush(self) -> None:
        if not (self._rows or self._records):
            return
        shown = _shown(self._rows)
        self._see(shown, len(self._ended))
        self._send(
            {
                **shown,
                "tickets_ended": len(self._ended),
                "rows": json.dumps(self._rows),
                "records": json.dumps(self._records),
            }
        )
        self._rows, self._records = [], []
        self._sent = time.monotonic()


def _shown(rows: Sequence[Row]) -> dict[str, float]:
    """Means over the pack at its last epoch of what is known."""
    last = [row for row in rows if row["step"] == rows[-1]["step"]]
    found = {name: [row[name] for row in last if row[name] is not None] for name in SHOWN}
    return {name: sum(values) / len(values) for name, values in found.items() if values}


def place_of(config: Row, wanted: Demands) -> "Place":
    """Where a trial or a worker is, with the CPUs and GPUs that its config says.

    Raises:
        LtrayError: it is on a node, come later than the driver perhaps, that cannot do its part.
    """
    from ltray.training.place import this_place

    node = ray.util.get_node_ip_address()
    wanted.check(node)
    return this_place(config["gpus"], config["cpus"], node)
