"""The rows of a run: collected from its folders, written as tables, read as data frames."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ltray.analysis.columns import (
    EPOCH_SCHEMA,
    TICKET_SCHEMA,
    TIME,
    Row,
    check_epochs,
    check_ticket,
    damaged,
)
from ltray.errors import LtrayError
from ltray.experiment import Experiment
from ltray.files import at, is_there, names_below, read_all, write_whole
from ltray.layout import ReplicateFolder, RunFolder
from ltray.lottery.matching import within_margin
from ltray.lottery.ready import left_aside
from ltray.lottery.tickets import TicketKey, cells_of, key
from ltray.lottery.trajectory import read_trajectory
from ltray.record import recorded_experiment
from ltray.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

DENSE = "dense"  # stands in the column `ticket` of a dense run's rows


@dataclass
class Rows:
    """Every row of a run, keyed by (replicate, ticket): a later one replaces an earlier one.

    `epochs` has a dense run's rows under the ticket name `dense`; `prunable` is the number of
    weights of each prunable tensor, empty while no dense run is done.
    """

    dense: dict[int, Row] = field(default_factory=dict)
    tickets: dict[TicketKey, Row] = field(default_factory=dict)
    epochs: dict[TicketKey, Sequence[Row]] = field(default_factory=dict)
    prunable: dict[str, int] = field(default_factory=dict)

    def put_dense(
        self, replicate: int, row: Row, epochs: Sequence[Row], prunable: dict[str, int]
    ) -> None:
        """Take in a dense run's row, epoch rows and prunable tensors."""
        self.dense[replicate] = row
        self.epochs[replicate, DENSE] = epochs
        self.prunable = prunable

    def put(self, row: Row, epochs: Sequence[Row]) -> None:
        """Take in a ticket's row and epoch rows, as its ticket.json or failed.json has them."""
        key = (row["replicate"], row["ticket"])
        self.tickets[key] = row
        self.epochs[key] = epochs


@dataclass(frozen=True)
class Results:
    """One row per ticket, one per ticket and evaluation, and the experiment that asked."""

    experiment: Experiment
    tickets: "pd.DataFrame"
    epochs: "pd.DataFrame"

    @property
    def grid(self) -> "pd.DataFrame":
        """The tickets of the experiment's own grid, one for each cell and replicate.

        Without controls, later retrainings, what other grids, copies and criteria have left in
        the same run, and cells that a search does not go on with.
        """
        rows = {(row["replicate"], row["ticket"]): row for row in self.tickets.to_dict("records")}
        aside = left_aside(self.experiment, rows)
        cells = cells_of(self.experiment)
        asked = {key(one) for one in cells if (one.sparsity, one.reset_epoch) not in aside}
        keys = zip(self.tickets["replicate"], self.tickets["ticket"], strict=True)
        return self.tickets[[one in asked for one in keys]]


def collect(run: RunFolder) -> Rows:
    """Read every ticket.json, failed.json and trajectory.json of a run.

    A ticket that is done and also has an old failed.json counts as done.

    Raises:
        LtrayError: a file does not hold the rows it should.
    """
    rows = Rows()
    for number, replicate in _replicates(run):
        _collect_dense(rows, number, replicate)
        _collect_tickets(rows, number, replicate)
    return rows


def is_matching(row: Row, margin: float) -> bool | None:
    """Whether a ticket matches its dense run on validation; None where it did not finish."""
    if row["status"] != "done":
        return None
    return within_margin(row["val_top1"] - row["dense_val_top1"], margin)


def write_tables(run: RunFolder, rows: Rows, margin: float) -> None:
    """Write tickets.parquet and epochs.parquet, each whole or not at all."""
    write_whole(run.tickets_table, _parquet(_tickets_table(rows, margin)))
    write_whole(run.epochs_table, _parquet(_epochs_table(rows)))


def read_results(run_path: Path | str) -> Results:
    """Read a run's tables, or make them anew from its folders where a table was deleted.

    While a sweep runs, its tables may be a minute behind.

    Raises:
        LtrayError: the folder is not a run, or a table is damaged.
    """
    run = RunFolder(at(str(run_path), "run_path"))
    experiment = _experiment_of(run)
    margin = experiment.report.margin
    if is_there(run.tickets_table) and is_there(run.epochs_table):
        tickets = _judged(_read_table(run.tickets_table), margin)
        epochs = _read_table(run.epochs_table)
    else:
        rows = collect(run)
        tickets, epochs = _tickets_table(rows, margin), _epochs_table(rows)
    return Results(experiment, _data_frame(tickets), _data_frame(epochs))


def _replicates(run: RunFolder) -> list[tuple[int, ReplicateFolder]]:
    names = (path.name for path in run.path.glob("replicate-*"))
    found = (re.fullmatch(r"replicate-(\d+)", name) for name in names)
    numbers = sorted(int(match[1]) for match in found if match)
    return [(number, run.replicate(number)) for number in numbers]


def _collect_dense(rows: Rows, number: int, replicate: ReplicateFolder) -> None:
    trajectory = read_trajectory(replicate)
    if trajectory is not None:
        check_epochs(replicate.trajectory, trajectory.epochs)
        rows.dense[number] = trajectory.row
        rows.epochs[number, DENSE] = trajectory.epochs
        rows.prunable = trajectory.prunable


def _collect_tickets(rows: Rows, number: int, replicate: ReplicateFolder) -> None:
    found = _ended(replicate)
    for (name, path), content in zip(found.items(), read_all(list(found.values())), strict=True):
        if content is None:
            continue  # a failed.json: a sweep that begins now tries the ticket again
        record = _record(path, content, ("row", "epochs"))
        check_ticket(path, record["row"])
        _check_place(path, record["row"], (number, name))
        check_epochs(path, record["epochs"])
        rows.put(record["row"], record["epochs"])


def _ended(replicate: ReplicateFolder) -> dict[str, Path]:
    """Ticket -> the file that says how it ended."""
    there = set(names_below(replicate.tickets))
    found = {}
    for name in sorted({one.partition("/")[0] for one in there}):
        ticket = replicate.ticket(name)
        ends = [path for path in (ticket.done, ticket.failed) if f"{name}/{path.name}" in there]
        if ends:
            found[name] = ends[0]
    return found


def _record(path: Path, content: bytes, keys: Iterable[str]) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except (JSONDecodeError, UnicodeDecodeError) as error:
        raise damaged(path, f"is not JSON: {error}") from error
    for name in keys:
        if name not in record:
            raise damaged(path, f"has no '{name}'")
    assert isinstance(record, dict)
    return record


def _check_place(path: Path, row: Row, place: TicketKey) -> None:
    """Refuse the row of another ticket, which a copied folder would bring in twice."""
    if (row["replicate"], row["ticket"]) != place:
        raise damaged(path, f"speaks of replicate {row['replicate']}, ticket {row['ticket']!r}")


def _tickets_table(rows: Rows, margin: float) -> pa.Table:
    in_order = sorted(
        rows.tickets.values(),
        key=lambda row: (row["replicate"], row["sparsity"], row["reset_epoch"], row["ticket"]),
    )
    judged = [{**row, "matching": is_matching(row, margin)} for row in in_order]
    return _table(judged, TICKET_SCHEMA)


def _epochs_table(rows: Rows) -> pa.Table:
    keys = sorted(rows.epochs, key=lambda key: (key[0], key[1] != DENSE, key[1]))
    return _table([row for key in keys for row in rows.epochs[key]], EPOCH_SCHEMA)


def _table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_arrays(
        [_column([row[column.name] for row in rows], column.type) for column in schema],
        schema=schema,
    )


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind == TIME:
        return pa.array(values, pa.string()).cast(TIME)
    return pa.array(values, kind)


def _parquet(table: pa.Table) -> bytes:
    buffer = BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _read_table(path: Path) -> pa.Table:
    try:
        return read_table(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        found = f"cannot be read: {error}"
        raise LtrayError(str(path), found, "delete it: it is made anew from its run") from None


def _judged(tickets: pa.Table, margin: float) -> pa.Table:
    """The table with `matching` worked out from the margin of today."""
    matching = [is_matching(row, margin) for row in tickets.to_pylist()]
    index = tickets.schema.get_field_index("matching")
    return tickets.set_column(index, "matching", pa.array(matching, pa.bool_()))


def _data_frame(table: pa.Table) -> "pd.DataFrame":
    import pandas as pd

    # With pandas' own bool, `tickets[tickets.matching]` would fail where one ticket has none.
    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get)
    return frame


def _experiment_of(run: RunFolder) -> Experiment:
    if not is_there(run.experiment):
        raise LtrayError(
            str(run.path),
            f"is not a run: it has no {run.experiment.name}",
            "name the folder <root>/<name>-<8 hex> that sweep wrote",
        )
    return recorded_experiment(run)
