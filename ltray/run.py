"""One run: an experiment whose source is known, and where its files lie. Travels to workers."""

from dataclasses import dataclass

from ltray.data.pixels import Pixels
from ltray.experiment import Experiment
from ltray.layout import DataFolder, RunFolder
from ltray.own_code import OwnCode


@dataclass(frozen=True)
class Run:
    """What every stage needs to know.

    Attributes:
        experiment: resolved, so nothing in it is left to the source.
        fingerprint: what the source's files are, wherever they lie.
        pixels: how the shards are made of them.
        network: what a person's own network is made by, to be copied into the run; the
            experiment's arch is that copy already. None for a network that has a name.
        criterion: a person's own, as it was read; the experiment's criterion is named by what it
            holds. None for one that has a name, or whose file is gone.
    """

    experiment: Experiment
    fingerprint: str
    pixels: Pixels
    folder: RunFolder
    data: DataFolder
    network: OwnCode | None = None
    criterion: OwnCode | None = None
