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
    "chance",
    "pruning",
)


def rendered(template: str, content: Mapping[str, Any]) -> str:
    """A page as HTML; a name that the template lacks is an error."""
    return _rendered(template, content, autoescape=True)


def rendered_text(template: str, content: Mapping[str, Any]) -> str:
    """The same of a template that is plain text."""
    return _rendered(template, content, autoescape=False)


def _rendered(template: str, content: Mapping[str, Any], autoescape: bool) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(wording, name) for name in FILTERS}
    return environment.get_template(template).render(content).strip() + "\n"
