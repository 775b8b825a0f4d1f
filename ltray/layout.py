"""Every folder and file name below a root, in one place."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataFolder:
    """`<root>/data/<source>-<8 hex>`: prepared shards."""

    path: Path

    @property
    def manifest(self) -> Path:
        """Written last: where it lies, the data set is whole."""
        return self.path / "manifest.json"

    @property
    def quarantine(self) -> Path:
        return self.path / "quarantine.parquet"

    @property
    def card(self) -> Path:
        """card.html: the data set at a glance."""
        return self.path / "card.html"

    @property
    def odd(self) -> Path:
        """odd.parquet: images that were taken though something is unusual about them."""
        return self.path / "odd.parquet"

    def part(self, split: str, number: int) -> Path:
        return self.path / split / f"part-{number:05d}.parquet"


@dataclass(frozen=True)
class TicketFolder:
    """`tickets/<ticket name>`: one retraining."""

    path: Path

    @property
    def state(self) -> Path:
        return self.path / "state.safetensors"

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def correct(self) -> Path:
        return self.path / "correct.safetensors"

    @property
    def done(self) -> Path:
        """ticket.json, written last: row, epoch rows and the sha256 of the other files."""
        return self.path / "ticket.json"

    @property
    def attempts(self) -> Path:
        return self.path / "attempts.json"

    @property
    def failed(self) -> Path:
        """failed.json, the driver's row of a ticket that failed."""
        return self.path / "failed.json"


@dataclass(frozen=True)
class ReplicateFolder:
    """`replicate-<r>`: one dense run, its masks and its tickets."""

    path: Path

    @property
    def trajectory(self) -> Path:
        """trajectory.json, written last: row, epoch rows and the sha256 of the step files."""
        return self.path / "trajectory" / "trajectory.json"

    @property
    def dense_state(self) -> Path:
        return self.path / "trajectory" / "state.safetensors"

    @property
    def dense_correct(self) -> Path:
        return self.path / "trajectory" / "correct.safetensors"

    @property
    def dense_attempts(self) -> Path:
        return self.path / "trajectory" / "attempts.json"

    def step(self, step: int) -> Path:
        return self.path / "trajectory" / f"step-{step:07d}.safetensors"

    @property
    def masks(self) -> Path:
        return self.path / "masks"

    def mask(self, name: str) -> Path:
        return self.masks / f"{name}.safetensors"

    @property
    def tickets(self) -> Path:
        return self.path / "tickets"

    def ticket(self, name: str) -> TicketFolder:
        return TicketFolder(self.tickets / name)


@dataclass(frozen=True)
class StabilityFolder:
    """`stability`: what lies between two copies of a ticket, which lie with the other tickets."""

    path: Path

    def line(self, replicate: int, name: str) -> Path:
        """Of the pair whose first copy has that ticket name."""
        return self.path / f"replicate-{replicate}" / f"{name}.json"

    @property
    def table(self) -> Path:
        return self.path / "barriers.parquet"

    @property
    def launches(self) -> Path:
        """launches.json of this command; those of the sweep tell of nothing else."""
        return self.path / "launches.json"

    def tune(self, launch: str) -> Path:
        return self.path / "tune" / launch

    @property
    def report(self) -> Path:
        return self.path / "report.html"


@dataclass(frozen=True)
class RunFolder:
    """`<root>/<experiment id>`: everything that one experiment gave."""

    path: Path

    @property
    def experiment(self) -> Path:
        return self.path / "experiment.yaml"

    @property
    def network(self) -> Path:
        """network.py: a copy of the file of a person's own network, the only one that is built."""
        return self.path / "network.py"

    def replicate(self, number: int) -> ReplicateFolder:
        return ReplicateFolder(self.path / f"replicate-{number}")

    @property
    def tickets_table(self) -> Path:
        return self.path / "tickets.parquet"

    @property
    def epochs_table(self) -> Path:
        return self.path / "epochs.parquet"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def transfer(self, source_id: str) -> "RunFolder":
        """What tickets of another experiment, the source, gave on this one's data."""
        return RunFolder(self.path / f"transfer-{source_id}")

    @property
    def transfer_page(self) -> Path:
        """transfer.html: the sources of the last transfer side by side."""
        return self.path / "transfer.html"

    @property
    def stability(self) -> StabilityFolder:
        return StabilityFolder(self.path / "stability")

    @property
    def launches(self) -> Path:
        """launches.json, the driver's: when it ran, on what, and how long each stage took."""
        return self.path / "launches.json"

    @property
    def lease(self) -> Path:
        """driver.json, there while a driver works on the run: who it is, when it last said so."""
        return self.path / "driver.json"

    @property
    def lock(self) -> Path:
        """Empty; locked while a process looks at the lease and then writes it."""
        return self.path / ".driver.lock"

    @property
    def scratch(self) -> Path:
        """Copies that a source makes while it is prepared; gone when the shards are whole."""
        return self.path / ".scratch"

    def tune(self, launch: str) -> Path:
        return self.path / "tune" / launch


def data_folder(root: Path, data_id: str) -> DataFolder:
    """The shards of a data id."""
    return DataFolder(root / "data" / data_id)


def run_folder(root: Path, experiment_id: str) -> RunFolder:
    """The run of an experiment id."""
    return RunFolder(root / experiment_id)


def comparison_page(one: RunFolder, other: RunFolder) -> Path:
    """The page of two runs side by side, in the root of the first."""
    return one.path.parent / f"compare-{one.path.name}-{other.path.name}.html"
