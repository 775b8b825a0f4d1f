"""What machines cost by the hour, and a sweep on them."""

from collections.abc import Mapping
from datetime import date
from math import ceil
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ltray.analysis.planning.estimate import Estimate
from ltray.errors import LtrayError, did_you_mean
from ltray.experiment import Sweep
from ltray.experiment_file import OneKeyOnce

OURS = Path(__file__).with_name("prices.yaml")


def _as_text(value: object) -> object:
    """YAML has 2026-11-26 for a date, and 2026 for a number."""
    return str(value) if isinstance(value, date | int) else value


class Instance(BaseModel):
    """One kind of machine: what it has, and its price in the table's currency."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    cpus: Annotated[int, Field(ge=1)]
    gpus: Annotated[int, Field(ge=0)]
    gpu: str | None = None
    per_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Prices(BaseModel):
    """A table of prices: as of when, in what, where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: Annotated[str, BeforeValidator(_as_text)]
    currency: str
    where: str
    instances: Annotated[Mapping[str, Instance], Field(min_length=1)]

    def instance(self, name: str) -> Instance:
        """The machine of this name.

        Raises:
            LtrayError: the table has none.
        """
        if name not in self.instances:
            known = list(self.instances)
            found = f"no price of '{name}'{did_you_mean(name, known)}"
            mend = f"choose {', '.join(known)}, or give a table of your own with --prices"
            raise LtrayError("--instance", found, mend)
        return self.instances[name]


def read_prices(path: Path = OURS) -> Prices:
    """Read a table of prices.

    Raises:
        LtrayError: there is none, or it is not like ours.
    """
    mend = f"write one like {OURS.name} of ltray/analysis/planning"
    try:
        return Prices.model_validate(yaml.load(path.read_text(), Loader=OneKeyOnce))
    except OSError as error:
        raise LtrayError("--prices", f"{path}: {error.strerror}", mend) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(key) for key in first["loc"]) or "the table"
        raise LtrayError("--prices", f"{path}: {where}: {first['msg']}", mend) from None
    except (yaml.YAMLError, ValueError) as error:  # not of text, or of a date that is none
        raise LtrayError("--prices", f"{path} is no YAML: {error}", mend) from None


def workers_on(instance: Instance, sweep: Sweep) -> int:
    """How many trials of an experiment run on such a machine at a time.

    Raises:
        LtrayError: not one does.
    """
    gpus = int(instance.gpus > 0) if sweep.gpus_per_trial == "auto" else sweep.gpus_per_trial
    cpus = _cpus(instance, gpus) if sweep.cpus_per_trial == "auto" else sweep.cpus_per_trial
    held = [instance.cpus // cpus] + ([instance.gpus // gpus] if gpus else [])
    if min(held) < 1:
        found = (
            f"has {instance.cpus} CPUs and {instance.gpus} GPUs; a trial takes {cpus} and {gpus}"
        )
        raise LtrayError("--instance", found, "choose another one")
    return min(held)


def _cpus(instance: Instance, gpus: int) -> int:
    """Of a trial, as a sweep shares out a machine's."""
    return max(1, instance.cpus // instance.gpus * gpus) if gpus and instance.gpus else 1


def bill(
    workers: int, held_seconds: Estimate | None, instance: Instance, workers_each: int
) -> tuple[int, Estimate | None]:
    """(machines, price) of holding machines for so many workers; None where that has no end."""
    machines = ceil(workers / workers_each)
    if held_seconds is None:
        return machines, None
    return machines, held_seconds * (machines * instance.per_hour / 3600)
