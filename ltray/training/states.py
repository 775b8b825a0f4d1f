"""When the state of networks in training is written."""

import time
from collections import deque
from collections.abc import Callable, Sequence

from ltray.errors import MachineLeaves
from ltray.training.network import Network

LONGEST_LOSS_SECONDS = 300.0
LARGEST_SHARE = 0.02  # of the time, for writing states at the ends of epochs
EXPECTED_SECONDS = 0.1  # for writing, before that has been measured
WRITES_REMEMBERED = 3


class States:
    """Writes the state of a pack's running networks after epochs, and within long ones.

    Writing waits until it would take at most a fiftieth of the time, so that short epochs are not
    slowed down by it; within an epoch it waits for five minutes. What it would take is what the
    quickest of the last writes took: one that an outage held up says nothing about the next.

    Args:
        write: puts one network's state where a later attempt looks for it, whole or not at all.
        leaves: what is said of the machine's end; empty while nothing is.
    """

    def __init__(self, write: Callable[[Network], None], leaves: Callable[[], str]) -> None:
        self._write = write
        self._leaves = leaves
        self._notice = ""
        self._written = time.monotonic()
        self._took = deque([EXPECTED_SECONDS], maxlen=WRITES_REMEMBERED)

    def due(self, epoch_ended: bool) -> bool:
        """Whether to write now; all processes of a group ask after the same steps."""
        self._notice = self._leaves()
        if self._notice:
            return True
        waited = time.monotonic() - self._written
        return waited > (min(self._took) / LARGEST_SHARE if epoch_ended else LONGEST_LOSS_SECONDS)

    def write(self, networks: Sequence[Network]) -> None:
        """Write all of these, one after the other, when it is due: each goes on from its own.

        Raises:
            MachineLeaves: when they are written, if the machine is about to be taken away.
        """
        started = time.monotonic()
        for network in networks:
            self._write(network)
        self._written = time.monotonic()
        self._took.append(self._written - started)
        if self._notice:
            raise MachineLeaves(self._notice)
