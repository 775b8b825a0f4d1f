"""Which trials had which device when, as the rows of a run tell it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Stay:
    """A pack on a device: from the start of its first ticket's training to its last one's end."""

    pack: str
    node: str
    device: str
    began: datetime
    ended: datetime


def stays(rows: "DataFrame") -> Iterator[Stay]:
    """Of each pack on each device that it was given; the tickets of a pack share theirs."""
    whose = ["pack", "node", "cuda_visible_devices"]
    for (pack, node, devices), tickets in rows.groupby(whose, sort=True):
        began, ended = tickets["started_at"].min(), tickets["finished_at"].max()
        assert devices, f"{pack} was given no device"
        for device in devices.split(","):
            yield Stay(pack, node, device, began, ended)


def overlaps(rows: "DataFrame") -> list[tuple[Stay, Stay]]:
    """Pairs of packs that were on one device of one node at the same time."""
    return [
        (one, other)
        for one, other in combinations(stays(rows), 2)
        if (one.node, one.device) == (other.node, other.device)
        and one.began < other.ended
        and other.began < one.ended
    ]


def most_at_once(rows: "DataFrame") -> int:
    """The most devices that were in use at one moment."""
    there = list(stays(rows))
    return max(sum(one.began <= then.began < one.ended for one in there) for then in there)


def devices(rows: "DataFrame") -> set[tuple[str, str]]:
    """(node, device) of all that were used."""
    return {(stay.node, stay.device) for stay in stays(rows)}
