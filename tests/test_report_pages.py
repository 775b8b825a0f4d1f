"""Every kind of report as a reader sees it: on a screen and a phone, in light and in dark."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Page, chromium
from made_up_pages import write_pages

SCREENS = tuple(product((1280, 390), ("light", "dark")))
TOLD = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
SETTLED = "document.readyState == 'complete' && location.protocol == 'file:'"
OPEN_ALL = "document.querySelectorAll('details').forEach(part => part.open = true)"
# Rows of a table are alike, and axe looks at each cell's colours for milliseconds.
FEWER_ROWS = "document.querySelectorAll('tr:nth-child(n+8)').forEach(row => row.remove())"
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Its own report of a rule is long: the rule and the first elements that break it will do.
AXE = """axe.run(%s).then(found => found.violations
    .filter(rule => ['serious', 'critical'].includes(rule.impact))
    .map(rule => rule.id + ': ' + rule.nodes.slice(0, 3).map(node => node.html).join(' ')))"""
# The dark changes colours alone, so that the other rules are not asked again.
RULES = {"light": {}, "dark": {"runOnly": ["color-contrast", "link-in-text-block"]}}


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_pages_fit_are_quiet_and_can_be_read_by_everybody(tmp_path: Path) -> None:
    pages = write_pages(tmp_path / "runs")
    faults = asyncio.run(_faults(tmp_path / "profile", pages))
    assert not faults, "\n".join(faults)


async def _faults(profile: Path, pages: dict[str, Path]) -> list[str]:
    """What is wrong with any page on any screen."""
    axe = (files("axe_core_python") / "axe.min.js").read_text()
    faults = []
    async with chromium(profile) as tab:
        for domain in ("Page", "Runtime", "Log", "Network"):
            await tab.ask(f"{domain}.enable")
        for name, path in pages.items():
            await _open(tab, path)
            faults += [f"{name}: {said}" for said in _heard(tab.events)]
            await tab.value(axe)
            for width, scheme in SCREENS:
                await tab.look(width, scheme)
                too_wide = await tab.value(TOO_WIDE)
                faults += [f"{name}: {too_wide} px wider than {width}"] if too_wide else []
            await tab.value(FEWER_ROWS)
            for width, scheme in SCREENS:
                await tab.look(width, scheme)
                faults += [
                    f"{name}, {width} px, {scheme}: {said}" for said in await _axe(tab, scheme)
                ]
    return faults


async def _open(tab: Page, path: Path) -> None:
    tab.events.clear()
    await tab.open(path.as_uri())
    while not await tab.value(SETTLED):
        await asyncio.sleep(0.05)
    await tab.value(OPEN_ALL)


def _heard(events: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What the page said on the console, and what it asked of anybody."""
    for event in events:
        if event["method"] in TOLD:
            yield str(event["params"])
        if event["method"] == "Network.requestWillBeSent":
            url = event["params"]["request"]["url"]
            if not url.startswith(("file:", "data:")):
                yield f"asks for {url}"


async def _axe(tab: Page, scheme: str) -> list[str]:
    """The rules of accessibility that are broken, of those that shut a reader out."""
    options = {"resultTypes": ["violations"], **RULES[scheme]}
    broken = await tab.value(AXE % json.dumps(options))
    assert isinstance(broken, list), "axe did not run"
    return broken
