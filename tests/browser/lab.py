"""A reader in Chromium who opens notebooks in JupyterLab and moves their panels."""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from tests.browser.server import Server

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
]
# What JupyterLab itself writes to the console of a healthy page (none seen so far).
HARMLESS: tuple[str, ...] = ()
BOOK = "window.jupyterapp.shell.currentWidget"
# The kernel's status says "idle" while a cell still runs, as soon as a widget message was handled: ask the prompts too.
IDLE = (
    f"{BOOK}.sessionContext.session.kernel.status === 'idle' && !{BOOK}.content.widgets.some("
    "cell => /\\[\\*\\]/.test(cell.node.querySelector('.jp-InputPrompt')?.textContent ?? ''))"
)
# Exceptions in a widget's callback show nowhere in the page; they pass by on iopub.
LISTEN = f"""() => {{
    window.complaints = [];
    {BOOK}.sessionContext.iopubMessage.connect((_, message) => {{
        const content = message.content, type = message.header.msg_type;
        if (type === 'error') window.complaints.push(content.ename + ': ' + content.evalue);
        if (type === 'stream' && content.name === 'stderr') window.complaints.push(content.text);
    }});
}}"""
READ = """panel => ({
    words: panel.querySelector('.convkit-words')?.innerText ?? '',
    alert: panel.querySelector('.convkit-words')?.getAttribute('role') === 'alert',
    alt: panel.querySelector('img')?.alt ?? '',
    picture: panel.querySelector('img')?.src ?? '',
})"""

LABELS = """parts => parts.map(part => [
    part.className,
    part.innerText,
    part.querySelector('label')?.innerText || part.querySelector('[title]')?.title || part.title || '',
])"""


class Reader:
    """One page with one notebook; ``trouble()`` lists what a reader should never meet."""

    def __init__(self, browser, server: Server, timeout: float = 120) -> None:
        self.server = server
        self.outside: list[str] = []
        self.console: list[str] = []
        self.context = browser.new_context(viewport={"width": 1400, "height": 1100}, reduced_motion="reduce")
        self.context.route("**/*", self._route)
        self.page = self.context.new_page()
        self.page.set_default_timeout(timeout * 1000)
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.console.append(str(error)))

    def _route(self, route) -> None:
        if route.request.url.startswith((self.server.url + "/", "data:", "blob:")):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()

    def _listen(self, message) -> None:
        if message.type == "error" and not any(text in message.text for text in HARMLESS):
            self.console.append(message.text)

    def open(self, notebook: str) -> None:
        """Open a copy of a notebook of the served folder (a copy has a kernel of its own) and wait for its kernel."""
        name = f"{Path(notebook).stem}_{secrets.token_hex(4)}.ipynb"
        shutil.copy(self.server.folder / notebook, self.server.folder / name)
        address = f"{self.server.url}/lab/workspaces/{secrets.token_hex(4)}/tree/{quote(name)}"
        self.page.goto(f"{address}?token={self.server.token}&reset")
        self._until("window.jupyterapp?.restored !== undefined")
        self._until(f"{BOOK}?.context?.isReady && {BOOK}.context.path === {json.dumps(name)}")
        self._until(f"{BOOK}.sessionContext.isReady && {BOOK}.sessionContext.session?.kernel?.status === 'idle'")
        # Lab asks a new kernel for widgets, and one that has none yet says "No such comm" on stderr: let that pass.
        self.page.wait_for_timeout(200)
        self.page.evaluate(f"() => {BOOK}.sessionContext.session.kernel.requestCommInfo({{}}).then(() => null)")
        self.wait_idle()
        self.page.evaluate(LISTEN)
        self.page.evaluate("window.jupyterapp.shell.collapseLeft()")

    def _until(self, condition: str) -> None:
        self.page.wait_for_function(f"() => {{ try {{ return {condition} }} catch {{ return false }} }}")

    def command(self, name: str) -> None:
        self.page.evaluate("name => { window.jupyterapp.commands.execute(name); return null }", name)

    def run_all(self) -> None:
        self.page.evaluate(
            "name => window.jupyterapp.commands.execute(name).then(() => null)", "notebook:run-all-cells"
        )
        self.wait_idle()

    def run_cell(self, number: int, wait: bool = True) -> None:
        self.page.evaluate(f"number => {{ {BOOK}.content.activeCellIndex = number; return null }}", number)
        self.command("notebook:run-cell")
        if wait:
            self.page.wait_for_timeout(50)
            self.wait_idle()

    def wait_idle(self) -> None:
        self._until(IDLE)

    def cells(self) -> list[dict]:
        return self.page.evaluate(f"() => {BOOK}.content.widgets.map(cell => cell.model.toJSON())")

    def cell(self, number: int):
        """The cell as a part of the page (code and markdown cells count, from 0)."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def panels(self) -> list["PanelView"]:
        found = self.page.locator(".convkit-panel")
        return [PanelView(self, found.nth(number)) for number in range(found.count())]

    def screenshot(self, name: str, part=None) -> None:
        """Keep a picture of the page (or of a part of it) where $CONVKIT_SCREENSHOTS says."""
        folder = os.environ.get("CONVKIT_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            (part or self.page).screenshot(path=Path(folder) / f"{name}.png")

    def trouble(self) -> list[str]:
        """Error outputs, complaints of the kernel, errors on the console, requests to outside."""
        outputs = [output for cell in self.cells() for output in cell.get("outputs", [])]
        errors = [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]
        return errors + self.page.evaluate("() => window.complaints") + self.console + self.outside

    def forget(self) -> None:
        """Start a new list of troubles."""
        self.page.evaluate("() => { window.complaints = [] }")
        self.console.clear()
        self.outside.clear()

    def close(self) -> None:
        self.page.evaluate(f"() => {BOOK}?.sessionContext?.shutdown()")  # one kernel less on a small machine
        self.context.close()


class PanelView:
    """A panel as the reader sees it; controls are found by their label."""

    def __init__(self, reader: Reader, root) -> None:
        self.reader, self.root, self.page = reader, root, reader.page

    def seen(self) -> dict:
        """Its ``words``, whether they are an ``alert``, the ``alt`` text, and a hash of the ``picture``."""
        state = self.root.evaluate(READ)
        return state | {"picture": hashlib.sha256(state["picture"].encode()).hexdigest()[:16]}

    def wait_change(self, before: dict, label: str = "the control", seconds: float = 10) -> dict:
        """What is seen once it differs from ``before`` and has stood still."""
        deadline = time.monotonic() + seconds
        while self.seen() == before:
            assert time.monotonic() < deadline, f"{label!r} changed nothing in {seconds:g} s: {before['words']}"
            self.page.wait_for_timeout(20)
        return self.settle()

    def wait_for(self, state: dict, label: str, seconds: float = 10) -> None:
        """Wait until Reset has brought ``state`` back."""
        deadline = time.monotonic() + seconds
        while self.seen() != state:
            assert time.monotonic() < deadline, f"Reset did not undo {label!r}: {self.seen()['words']}"
            self.page.wait_for_timeout(20)

    def settle(self, still: float = 0.25) -> dict:
        """What is seen once the kernel is idle and nothing has changed for a moment."""
        last, since = self.seen(), time.monotonic()
        while time.monotonic() - since < still:
            self.page.wait_for_timeout(40)
            now = self.seen()
            if now != last or not self.page.evaluate(f"() => {IDLE}"):
                last, since = now, time.monotonic()
        return last

    def control(self, label: str):
        """The control with this description."""
        return next(part for kind, name, part in self.controls() if name == label)

    def controls(self) -> list[tuple[str, str, object]]:
        """(kind, label, part of the page) of every control, in order; buttons come with their text."""
        kinds = {
            "slider": ".widget-slider",
            "choice": ".widget-dropdown",
            "toggle": ".widget-checkbox",
            "text": ".widget-text",
            "button": "button.widget-button",
        }
        parts = self.root.locator(", ".join(kinds.values()))
        # One look at the page for all: controls come and go while a panel trains.
        seen = parts.evaluate_all(LABELS)
        found = []
        for number, (classes, text, label) in enumerate(seen):
            kind = next(kind for kind, selector in kinds.items() if selector.rpartition(".")[2] in classes.split())
            found.append((kind, (text if kind in ("button", "toggle") else label).strip(), parts.nth(number)))
        return found

    def drag(self, slider, fraction: float) -> None:
        """Drag the handle with the mouse to this fraction of the track."""
        slider.scroll_into_view_if_needed()
        handle = slider.locator(".noUi-handle").first.bounding_box()
        track = slider.locator(".noUi-base").first.bounding_box()
        height = handle["y"] + handle["height"] / 2
        self.page.mouse.move(handle["x"] + handle["width"] / 2, height)
        self.page.mouse.down()
        self.page.mouse.move(track["x"] + track["width"] * fraction, height, steps=6)
        self.page.mouse.up()

    def pick(self, dropdown, option: int | str) -> None:
        """Choose in a drop-down list, by place or by text."""
        how = {"index": option} if isinstance(option, int) else {"label": option}
        dropdown.locator("select").select_option(**how)

    def tick(self, checkbox) -> None:
        checkbox.locator("input").click()

    def type(self, field, text: str) -> None:
        entry = field.locator("input")
        entry.click()
        entry.fill(text)
        entry.press("Enter")

    def reset(self) -> None:
        self.root.get_by_role("button", name="Reset", exact=True).click()

    def moves(self, kind: str, part) -> list[Callable[[], None]]:
        """What a reader can do with a control: drag to both ends, choose each other option, tick, type, press."""
        if kind == "slider":
            handle = part.locator(".noUi-handle").first
            now, low, high = (float(handle.get_attribute(f"aria-value{name}")) for name in ("now", "min", "max"))
            return [lambda end=end: self.drag(part, end) for end in (0, 1) if now != (low, high)[end]]
        if kind == "choice":
            select = part.locator("select")
            options, now = select.locator("option").count(), select.evaluate("select => select.selectedIndex")
            return [lambda option=option: self.pick(part, option) for option in range(options) if option != now]
        if kind == "text":
            return [lambda: self.type(part, f"{float(part.locator('input').input_value()) + 0.5:g}")]
        return [lambda: self.tick(part) if kind == "toggle" else part.click()]

    def move_everything(self) -> None:
        """Make every move of every control, see the picture or the words change each time, and see Reset undo it."""
        first = before = self.settle()
        assert first["words"].strip(), "the panel says nothing"
        controls = self.controls()
        kinds = [kind for kind, _, _ in controls] + [""]
        for place, (kind, label, part) in enumerate(controls):
            moves = [] if label == "Reset" else self.moves(kind, part)
            assert moves or label == "Reset", f"{label!r} has only one state"
            for move in moves:
                move()
                before = self.wait_change(before, label)
                assert "bug in the panel" not in before["words"], f"{label!r}: {before['words']}"
                assert before["alert"] or before["alt"] == before["words"], f"{label!r}: the alt text is an old one"
                if kind != "text" or kinds[place + 1] != "text":  # the fields of a grid are filled one after the other
                    self.reset()
                    self.wait_for(first, label)
                    before = first
