"""A headless Chromium for tests, which control it over its DevTools protocol."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect

FOUND = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--remote-debugging-port=0", "--remote-allow-origins=*"),
)


class Tab:
    """One page.

    Attributes:
        requested: Addresses that it asked for, in order.
        said: What its scripts complained about.
    """

    def __init__(self, socket: ClientConnection) -> None:
        """Listen to a page."""
        self._socket, self._number = socket, 0
        self.requested: list[str] = []
        self.said: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> Any:
        """Call a method of the protocol and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            self._note(message)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requested.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.said.append(str(params["exceptionDetails"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.said.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def size(self, width: int, height: int, *, scale: float = 1, dark: bool = False) -> None:
        """Set the window's size in pixels, and whether its reader prefers light or dark colours."""
        sizes = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **sizes)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        """Open an address."""
        self.call("Page.navigate", url=address)

    def value(self, script: str) -> Any:
        """Return what a JavaScript expression gives."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Wait until a JavaScript condition holds."""
        deadline = time.monotonic() + seconds
        while not self.value(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"{condition}: {self.value(TEXT)}"
            time.sleep(0.1)

    def press(self, text: str, place: int = 0) -> None:
        """Press a button by its text; `place` picks one of several with the same text."""
        same = f"b => b.innerText.trim() === {json.dumps(text)}"
        buttons = f"[...document.querySelectorAll('button')].filter({same})"
        self.wait(f"{buttons}.length > {place}")
        self.value(f"{buttons}[{place}].click()")

    def texts(self, selector: str) -> list[str]:
        """Return the texts of the elements that a CSS selector finds."""
        found: list[str] = self.value(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText.trim())"
        )
        return found

    def picture(self, path: Path, width: int, height: int, top: int = 0) -> None:
        """Write what the page shows as PNG, from the pixel row `top` on."""
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


TEXT = "document.body ? document.body.innerText.slice(0, 2000) : ''"


@contextmanager
def opened(folder: Path) -> Iterator[Tab]:
    """Start a browser whose profile is a folder, yield its page, and end it."""
    profile = folder / "profile"
    command = [str(FOUND), *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_page_address(profile, process), max_size=2**28) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait(30)


def _page_address(profile: Path, process: "subprocess.Popen[bytes]") -> str:
    """Return the address at which the browser's page takes commands, as soon as it takes them."""
    port = profile / "DevToolsActivePort"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        lines = port.read_text().splitlines() if port.is_file() else []
        if len(lines) > 1:
            with urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=10) as answer:
                pages = [page for page in json.load(answer) if page["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise AssertionError("Chromium did not start")
