"""A reader in Chromium who opens notebooks in JupyterLab and moves their panels."""

import json
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.browser.server import Server
from tests.browser.view import PanelView, late

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
]
PATIENCE = 240.0  # seconds after which an event counts as missing; no wait is without a limit
BOOK = "window.jupyterapp.shell.currentWidget"
# Keeps `pending`, the requests to the kernel that are not done: a request leaves it once the page has dealt with the
# last message that it brought. And `complaints`: exceptions in a widget's callback show nowhere in the page, they pass
# by on iopub. JupyterLab opens a comm of its own (the id has dashes) to ask every kernel for widgets: that a new kernel
# has none is no complaint. The subshell of that comm is deleted while the kernel closes it, so that the word that this
# is done may never come, and the kernel's status may stay "busy": neither is waited for.
LISTEN = f"""() => {{
    const kernel = {BOOK}?.sessionContext?.session?.kernel;
    if (!kernel) return false;
    if (window.listened === kernel) return true;
    Object.assign(window, {{listened: kernel, pending: new Map(), complaints: []}});
    kernel.anyMessage.connect((_, {{msg, direction}}) => {{
        if (direction !== 'send' || msg.channel !== 'shell') return;
        const {{msg_id, msg_type, subshell_id}} = msg.header, shell = subshell_id ? 'a subshell' : 'the main shell';
        const text = `${{msg_type}} on ${{shell}}: ${{JSON.stringify(msg.content)}}`;
        if (!msg.content.comm_id?.includes('-')) window.pending.set(msg_id, text);
    }});
    kernel.iopubMessage.connect((_, message) => {{
        const content = message.content, type = message.header.msg_type, request = message.parent_header?.msg_id;
        if (type === 'error') window.complaints.push(content.ename + ': ' + content.evalue);
        if (type === 'stream' && content.name === 'stderr') {{
            const asked = !window.pending.has(request);  // by that comm, or before this listened
            if (!asked || !content.text.includes('No such comm')) window.complaints.push(content.text);
        }}
        if (type === 'status' && content.execution_state === 'idle') window.pending.delete(request);
    }});
    return true;
}}"""
# A cell that waits for its turn has a star, and has sent no request yet.
IDLE = (
    f"window.pending.size === 0 && !{BOOK}.content.widgets.some("
    "cell => /\\[\\*\\]/.test(cell.node.querySelector('.jp-InputPrompt')?.textContent ?? ''))"
)

# What the kernel says of requests that a page made before it was loaded anew: their subshell is gone with the page, and
# ipykernel and pyzmq leave what is said of it to nobody.
LEFT_BEHIND = re.compile(r"UnknownSubshellError|zmqstream\.py|coroutine .* was never awaited")
# What waits behind a busy cell on the main shell does not count: JupyterLab may ask there for comms at any time.
ANSWERED = "[...window.pending.values()].every(text => text.includes(' on the main shell: '))"


class Reader:
    """One page with one notebook; ``trouble()`` lists what a reader should never meet."""

    def __init__(self, browser, server: Server) -> None:
        self.server = server
        self.outside: list[str] = []
        self.console: list[str] = []
        self.reloaded = False
        self.context = browser.new_context(viewport={"width": 1400, "height": 1100}, reduced_motion="reduce")
        self.context.route("**/*", self._route)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.console.append(str(error)))

    def _route(self, route) -> None:
        if route.request.url.startswith((self.server.url + "/", "data:", "blob:")):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()

    def _listen(self, message) -> None:
        if message.type == "error":
            self.console.append(message.text)

    def open(self, notebook: str) -> None:
        """Open a copy of a notebook of the served folder (a copy has a kernel of its own) and wait for its kernel."""
        name = f"{Path(notebook).stem}_{secrets.token_hex(4)}.ipynb"
        shutil.copy(self.server.folder / notebook, self.server.folder / name)
        address = f"{self.server.url}/lab/workspaces/{secrets.token_hex(4)}/tree/{quote(name)}"
        self.page.goto(f"{address}?token={self.server.token}&reset")
        self._wait_open(name)
        self.ask("() => window.jupyterapp.shell.collapseLeft()")

    def reload(self) -> None:
        """Load the page again; the kernel goes on."""
        self.reloaded = True
        name = self.ask(f"() => {BOOK}.context.path")
        self.page.reload()
        self._wait_open(name)

    def _wait_open(self, name: str) -> None:
        self.until(f"({LISTEN})()")
        self.until(f"{BOOK}.context.isReady && {BOOK}.context.path === {json.dumps(name)}")
        self.until(f"{BOOK}.sessionContext.isReady && ({LISTEN})()")
        self.ask(f"() => {BOOK}.sessionContext.session.kernel.info.then(() => null)")
        self.wait_idle()

    def ask(self, function: str, argument: object = None) -> Any:
        """What a function of the page returns, also by a promise; unlike ``page.evaluate`` it has a time limit."""
        answer = self.page.wait_for_function(f"async argument => [await ({function})(argument)]", arg=argument)
        return answer.json_value()[0]

    def until(self, condition: str) -> None:
        """Wait until an expression holds in the page; what it asks about may not be there yet."""
        try:
            self.page.wait_for_function(f"() => {{ try {{ return {condition} }} catch {{ return false }} }}")
        except late():
            left = self.ask("() => [...(window.pending?.values() ?? [])].map(text => text.slice(0, 300))")
            raise AssertionError(f"it did not come to {condition}; without an answer: {left}") from None

    def command(self, name: str) -> None:
        """Run a command of JupyterLab to its end, such as that of the last cell that it runs."""
        self.ask("name => window.jupyterapp.commands.execute(name).then(() => null)", name)

    def run_all(self) -> None:
        self.command("notebook:run-all-cells")
        self.wait_idle()

    def run_cell(self, number: int, wait: bool = True) -> None:
        self.ask(f"number => {{ {BOOK}.content.activeCellIndex = number }}", number)
        if wait:
            self.command("notebook:run-cell")
            self.wait_idle()
        else:
            self.ask("() => { window.jupyterapp.commands.execute('notebook:run-cell') }")

    def write(self, number: int, source: str) -> None:
        """Put code into a cell."""
        change = f"([number, source]) => {{ {BOOK}.content.widgets[number].model.sharedModel.setSource(source) }}"
        self.ask(change, [number, source])

    def restart(self) -> None:
        """Restart the kernel and wait until it answers; what was asked of the old one stays without an answer."""
        self.ask(f"() => {BOOK}.sessionContext.restartKernel().then(() => null)")
        self.until(f"({LISTEN})()")
        self.ask("() => window.pending.clear()")
        self.ask(f"() => {BOOK}.sessionContext.session.kernel.requestKernelInfo().then(() => null)")
        self.wait_idle()

    def wait_idle(self) -> None:
        """Wait until no cell runs and the page has dealt with all that the kernel sent to answer it."""
        self.until(IDLE)

    def cells(self) -> list[dict]:
        return self.ask(f"() => {BOOK}.content.widgets.map(cell => cell.model.toJSON())")

    def cell(self, number: int):
        """The cell as a part of the page (code and markdown cells count, from 0)."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def width(self, image) -> int:
        """How wide a picture is in truth, once it is there."""
        loaded = "image => image.complete && image.naturalWidth"
        return self.page.wait_for_function(loaded, arg=image.element_handle()).json_value()

    def panels(self) -> list[PanelView]:
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
        complaints = self.ask("() => window.complaints")
        if self.reloaded:
            complaints = [text for text in complaints if not LEFT_BEHIND.search(text)]
        return errors + complaints + self.console + self.outside

    def forget(self) -> None:
        """Start a new list of troubles."""
        self.ask("() => { window.complaints.length = 0 }")
        self.console.clear()
        self.outside.clear()

    def close(self) -> None:
        try:
            self.ask(f"() => {BOOK}?.sessionContext?.shutdown()")  # one kernel less on a small machine
        finally:
            self.context.close()
