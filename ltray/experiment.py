"""One experiment: what a YAML file says, frozen; its ids and its arithmetic of epochs and steps.

Every field carries in its description what is allowed there, in the words that an error uses.
"""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ltray.files import short_hash

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Sequence = Field(strict=False)  # YAML has lists, a frozen experiment has tuples

SOURCES = (
    "digits",
    "npz",
    "parquet",
    "image_folder",
    "webdataset",
    "ilsvrc2012",
    "ilsvrc2012_t3",
)
TORCHVISION_PREFIX = "torchvision:"


class Section(BaseModel):
    """A mapping whose keys are all known and whose values have exactly the right types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Data(Section):
    """Which images, as they are stored and as the network sees them."""

    source: str = Field(
        pattern=rf"^({'|'.join(SOURCES)}|{TORCHVISION_PREFIX}[A-Za-z_]\w*)$",
        description=f"one of {', '.join(SOURCES)}, {TORCHVISION_PREFIX}<Dataset>",
    )
    path: str | None = Field(
        None, min_length=1, description="the folder or file of the source's own files"
    )
    image_size: Count | None = Field(None, description="pixels per side, a whole number above 0")
    resize: Literal["crop", "squash"] = Field("crop", description="crop or squash")
    encoding: Literal["auto", "jpeg", "raw"] = Field("auto", description="auto, jpeg or raw")
    channels: Literal["auto", 1, 3] = Field("auto", description="auto, 1 or 3")
    crop_size: Count | None = Field(None, description="pixels per side, a whole number above 0")
    augment: Literal["none", "random_crop", "random_resized_crop"] = Field(
        "none", description="none, random_crop or random_resized_crop"
    )
    classes: (
        Literal["all"]
        | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Sequence, Field(min_length=2)]
    ) = Field("all", description="all, or a list of at least two labels (whole numbers from 0)")
    train_limit: Count | None = Field(None, description="a whole number above 0, or null for all")
    validation_fraction: float = Field(
        0.1, gt=0, lt=1, allow_inf_nan=False, description="a number above 0 and below 1"
    )

    @field_validator("channels", mode="before")
    @classmethod
    def _equal_is_not_enough(cls, value: object) -> object:
        # Literal compares with ==, and to Python True and 1.0 are equal to 1.
        if isinstance(value, bool | float):
            raise ValueError("neither a bool nor a float")
        return value


class Model(Section):
    """The network by name, or as a function of a person's own file."""

    arch: str = Field(min_length=1, description="the name of a network, or file.py:function")


class Train(Section):
    """One recipe for the dense run and every ticket."""

    epochs: Count = Field(description="a whole number above 0")
    batch_size: Count = Field(description="images per step, a whole number above 0")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="sgd, adam or adamw")
    lr: Positive = Field(description="a number above 0")
    schedule: Literal["step", "cosine", "constant"] = Field(
        "constant", description="step, cosine or constant"
    )
    drops: Annotated[tuple[Positive, ...], Sequence] = Field(
        (), description="a list of epochs above 0"
    )
    warmup_epochs: NotNegative = Field(0.0, description="a number from 0")
    momentum: Share = Field(0.0, description="a number from 0 to below 1")
    nesterov: bool = Field(False, description="true or false")
    weight_decay: NotNegative = Field(0.0, description="a number from 0")
    label_smoothing: Share = Field(0.0, description="a number from 0 to below 1")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="float32 or bfloat16")
    evaluate_every: Literal["epoch"] | Count = Field(
        "epoch", description="epoch, or a number of steps above 0"
    )
    data_seed: Annotated[int, Field(ge=0)] | None = Field(
        None, description="a whole number from 0, or null for the seed"
    )


class Prune(Section):
    """Which weights go."""

    criterion: str = Field(
        "magnitude",
        pattern=r"^(magnitude|random|snip|synflow|grasp|.+\.py:\w+)$",
        description="magnitude, random, snip, synflow, grasp or file.py:function",
    )
    scores: Literal["auto", "final", "reset", "init"] = Field(
        "auto", description="auto, final, reset or init"
    )
    scope: Literal["global", "layerwise", "erk", "balanced"] = Field(
        "global", description="global, layerwise, erk or balanced"
    )
    style: Literal["one_shot", "iterative"] = Field("one_shot", description="one_shot or iterative")
    search: Literal["grid", "matching"] = Field("grid", description="grid or matching")
    sparsities: Annotated[tuple[Share, ...], Sequence, Field(min_length=1)] = Field(
        description="a list of numbers from 0 to below 1"
    )
    keep_dense: Annotated[tuple[str, ...], Sequence] = Field(
        (), description="a list of names of weight tensors"
    )
    output_rate: Positive = Field(1.0, description="a number above 0")
    min_layer_density: Share = Field(0.0, description="a number from 0 to below 1")


class Reset(Section):
    """Where the tickets start from and how they are retrained."""

    epochs: Annotated[tuple[NotNegative, ...], Sequence, Field(min_length=1)] = Field(
        description="a list of epochs from 0, fractions allowed"
    )
    method: Literal["weights", "learning_rate", "fine_tune"] = Field(
        "weights", description="weights, learning_rate or fine_tune"
    )
    schedule: Literal["continue", "restart"] = Field("continue", description="continue or restart")
    retrainings: Count = Field(1, description="a whole number above 0")


class Report(Section):
    """How results are judged; changes none of them."""

    margin: Share = Field(0.005, description="a number from 0 to below 1")


class Sweep(Section):
    """How the machines are used; changes no result."""

    backend: Literal["auto", "loop", "fused", "csr", "compiled_loop", "compiled_fused"] = Field(
        "auto", description="auto, loop, fused, csr, compiled_loop or compiled_fused"
    )
    tickets_per_trial: Literal["auto"] | Count = Field(
        "auto", description="auto, or a whole number above 0"
    )
    gpus_per_trial: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto", description="auto, or a whole number from 0"
    )
    dense_gpus: Annotated[int, Field(ge=0)] | None = Field(
        None, description="a whole number from 0, or null for gpus_per_trial"
    )
    cpus_per_trial: Literal["auto"] | Count = Field(
        "auto", description="auto, or a whole number above 0"
    )
    max_failures: Annotated[int, Field(ge=0)] = Field(3, description="a whole number from 0")


class Experiment(Section):
    """One experiment, checked by `ltray.experiment_file.read_experiment`."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="up to 64 letters, digits, '.', '_' and '-', not starting with a mark",
    )
    seed: int = Field(0, ge=0, description="a whole number from 0")
    replicates: Count = Field(1, description="a whole number above 0")
    data: Data
    model: Model
    train: Train
    prune: Prune
    reset: Reset
    controls: Annotated[tuple[Literal["shuffled_mask", "random_init"], ...], Sequence] = Field(
        (), description="a list of shuffled_mask and random_init"
    )
    report: Report = Report()
    sweep: Sweep = Sweep()


class SourceFacts(BaseModel):
    """What a source says of itself before any image is decoded.

    `image_size` is None where its images are not all square and alike.
    """

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    image_size: int | None
    channels: Literal[1, 3]


def resolve(experiment: Experiment, facts: SourceFacts) -> Experiment:
    """Fill in what the file left to the source: sizes, channels, encoding, data_seed."""
    data = experiment.data
    image_size = data.image_size or facts.image_size
    encoding = data.encoding
    if encoding == "auto" and image_size is not None:
        encoding = "raw" if image_size < 64 else "jpeg"
    filled = {
        "image_size": image_size,
        "crop_size": data.crop_size or image_size,
        "channels": facts.channels if data.channels == "auto" else data.channels,
        "encoding": encoding,
    }
    seed = experiment.seed if experiment.train.data_seed is None else experiment.train.data_seed
    return experiment.model_copy(
        update={
            "data": data.model_copy(update=filled),
            "train": experiment.train.model_copy(update={"data_seed": seed}),
        }
    )


def decides_dense_run(experiment: Experiment) -> dict[str, Any]:
    """The keys that decide the dense run, as JSON; where the source lies is not among them."""
    return experiment.model_dump(
        mode="json",
        include={"seed": True, "data": True, "model": True, "train": True},
        exclude={"data": {"path"}},
    )


def experiment_id(experiment: Experiment, fingerprint: str) -> str:
    """`<name>-<8 hex>` of a resolved experiment."""
    decides = {**decides_dense_run(experiment), "fingerprint": fingerprint}
    return f"{experiment.name}-{short_hash(decides)}"


def data_id(data: Data, fingerprint: str) -> str:
    """`<source>-<8 hex>` of what decides the shards; crops, classes and splits do not."""
    decides = data.model_dump(
        mode="json", include={"source", "image_size", "resize", "encoding", "channels"}
    )
    return f"{data.source}-{short_hash({**decides, 'fingerprint': fingerprint})}"


def as_written(number: float) -> str:
    """The shortest decimal of a level or a reset point: 0.60 is `0.6`, 2.0 is `2`."""
    return format(decimal(number).normalize() + 0, "f")


def decimal(number: float) -> Decimal:
    """The number that a person wrote, exactly: Decimal('0.95'), not its nearest double."""
    return Decimal(repr(number))


def exact_count(share: Decimal, of: int) -> int:
    """round(share x of) worked out in decimal, halves to even."""
    return int((share * of).to_integral_value(ROUND_HALF_EVEN))


def step_of(epochs: float, steps_per_epoch: int) -> int:
    """The step that lies `epochs` into a run."""
    return exact_count(decimal(epochs), steps_per_epoch)


def steps_per_epoch(train_images: int, batch_size: int) -> int:
    """Steps per epoch: the last incomplete batch is dropped unless it is the only one."""
    return max(1, train_images // batch_size)


def replicate_seeds(experiment: Experiment, replicate: int) -> tuple[int, int]:
    """(seed, data_seed) of a replicate of a resolved experiment."""
    data_seed = experiment.train.data_seed
    assert data_seed is not None, "resolve() fills data_seed"
    return experiment.seed + replicate, data_seed + replicate
