"""Pages from the templates beside this file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltray.analysis import wording

FILTERS = (
    "percent",
    "level",
    "kept",
    "epoch",
    "points",
    "margin_points",
    "duration",
    "quantity",
    "data_size",
)


def rendered(template: str, content: Mapping[str, Any]) -> str:
    """A page as HTML; a name that the template lacks is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(wording, name) for name in FILTERS}
    return environment.get_template(template).render(content).strip() + "\n"
