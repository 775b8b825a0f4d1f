"""A headless Chromium that is clicked and typed in as a person does, over its own protocol."""

import asyncio
import base64
import itertools
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-gpu",
    "--no-sandbox",
    "--headless",
]


class Page:
    """A tab.

    Attributes:
        events: what it told unasked, for the domains of the protocol that were enabled.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.events: list[dict[str, Any]] = []
        self._socket = socket
        self._numbers = itertools.count()

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json()
            if "method" in message:
                self.events.append(message)
            if message.get("id") == number:
                if "navigated" in message.get("error", {}).get("message", ""):
                    return await self.ask(method, **params)  # the page that was asked is gone
                assert "result" in message, message
                result: dict[str, Any] = message["result"]
                return result

    async def open(self, url: str) -> None:
        await self.ask("Page.navigate", url=url)

    async def value(self, script: str) -> Any:
        """What a line of JavaScript gives; where that is a promise, what it comes to."""
        told = await self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        return told["result"].get("value")

    async def look(self, width: int, scheme: str) -> None:
        """Show pages as on a screen of some width in pixels, in `light` or `dark` colours."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        await self.ask("Emulation.setDeviceMetricsOverride", **size)
        wanted = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.ask("Emulation.setEmulatedMedia", features=wanted)

    async def text(self) -> str:
        """All that can be read on the page."""
        return str(await self.value("document.body.innerText"))

    async def shows(self, wanted: str, seconds: float = 60) -> None:
        """Wait until some text is there."""
        until = time.monotonic() + seconds
        while wanted not in (text := await self.text()):
            assert time.monotonic() < until, f"no {wanted!r} in: {text}"
            await asyncio.sleep(0.3)

    async def type(self, text: str) -> None:
        """Type where the cursor is, then press Enter."""
        await self.ask("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
            await self.ask("Input.dispatchKeyEvent", type=kind, **enter)

    async def screenshot(self, path: Path) -> None:
        told = await self.ask("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(told["data"]))


@asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Page]:
    """A browser with one tab."""
    browser = subprocess.Popen(
        [
            str(CHROMIUM),
            *QUIET,
            f"--user-data-dir={profile}",
            "--remote-debugging-port=0",
            "--window-size=1600,1000",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = await _port(profile / "DevToolsActivePort", browser)
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = [tab for tab in await answer.json() if tab["type"] == "page"]
            async with http.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        browser.terminate()
        browser.wait()


async def _port(path: Path, browser: subprocess.Popen[bytes]) -> str:
    while not (path.is_file() and path.read_text().strip()):
        assert browser.poll() is None, "Chromium ended"
        await asyncio.sleep(0.1)
    return path.read_text().split()[0]
