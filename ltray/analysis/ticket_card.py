"""The card of an exported ticket: what it is, how good, how to load it, and where it comes from."""

from collections.abc import Mapping
from typing import Any

import yaml

from ltray.analysis.chosen import Chosen
from ltray.analysis.results import is_matching
from ltray.analysis.templates import rendered_text
from ltray.experiment import Experiment, as_written
from ltray.models.names import CLASSICS

START = {
    (False, "weights"): "the dense run's weights at the reset point",
    (False, "learning_rate"): "the trained weights that it was pruned from",
    (False, "fine_tune"): "the trained weights that it was pruned from",
    (True, "weights"): "fresh initial weights",
}
"""(on fresh weights, reset.method) -> what training started with"""


def ticket_card(
    experiment: Experiment,
    chosen: Chosen,
    about: Mapping[str, Any],
    counts: tuple[int, int, int],
    licence: str | None,
) -> str:
    """README.md of an exported folder, with the lines on top that model hubs read.

    Args:
        about: what ticket.json says.
        counts: of train, validation and test images.
        licence: of the files, as whoever exports them says.
    """
    row, network = about["row"], about["network"]
    content = {
        "about": about,
        "row": row,
        "experiment": experiment,
        "counts": dict(zip(("train", "validation", "test"), counts, strict=True)),
        "winner": chosen.winner,
        "matching": is_matching(chosen.row, experiment.report.margin),
        "licence": licence,
        "files": about["sha256"],
        "torchvision": not network["own"] and network["arch"] not in CLASSICS,
        "start": START[row["control"] == "random_init", row["reset_method"]],
        "how": _how(about),
        "recipe": yaml.safe_dump(about["experiment"], sort_keys=False).strip(),
    }
    return rendered_text("ticket.md.jinja", content)


def _how(about: Mapping[str, Any]) -> str:
    """Criterion, level, reset point and seeds in a sentence."""
    row = about["row"]
    levels = "level by level" if row["style"] == "iterative" else "in one shot"
    epoch = as_written(row["reset_epoch"])
    point = {
        "weights": f", reset to epoch {epoch}",
        "learning_rate": f", its learning rate put back to epoch {epoch}",
        "fine_tune": f", fine-tuned for as long as from epoch {epoch} on",
    }[row["reset_method"]]
    if row["control"] == "random_init":
        point = ""
    rest = "All else is in the recipe."
    if "prune" not in about["experiment"]:
        rest = (
            "What else decided its mask (layers kept dense, the output layer's rate, the weights "
            "that were scored, denser levels) is not recorded: its experiment asks for other "
            "tickets by now. The recipe is what it was trained by."
        )
    return (
        f"Pruned to a sparsity of {as_written(row['sparsity'])} {levels} by `{row['criterion']}` "
        f"(scope {row['scope']}){point}; trained for {row['epochs_trained']:g} epochs on seed "
        f"{row['seed']} with data order {row['data_seed']}. {rest}"
    )
