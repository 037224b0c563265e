"""A private JupyterLab on loopback: no settings of the user, no news, nothing left behind."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of view are not in the page
    "docmanager-extension/plugin": {"autosave": False},
}


class Server:
    """``jupyter lab`` that serves ``folder`` and keeps settings, workspaces and runtime files in ``state``."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.folder, self.state = folder, state
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.token = secrets.token_hex(16)
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Server":
        kinds = ("config", "data", "runtime", "settings", "workspaces")
        places = {f"JUPYTER{'LAB' if kind in kinds[3:] else ''}_{kind.upper()}_DIR": kind for kind in kinds}
        environment = os.environ | {name: str(self.state / place) for name, place in places.items()}
        environment["IPYTHONDIR"] = str(self.state / "ipython")
        environment["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a restarted kernel warns of frozen modules
        for name, values in SETTINGS.items():
            path = self.state / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        options = f"--no-browser --ServerApp.ip=127.0.0.1 --ServerApp.port={self.port}".split()
        options += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.folder}"]
        options += [f"--IdentityProvider.token={self.token}"]
        options += ["--LabApp.expose_app_in_browser=True", "--LabApp.news_url="]
        options += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        self.log = (self.state / "lab.log").open("wb")
        command = [sys.executable, "-m", "jupyter", "lab", *options]
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/api?token={self.token}", timeout=5).close()
                return self
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.__exit__()
                    said = (self.state / "lab.log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"jupyter lab did not start:\n{said}") from None
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()  # lets it end its kernels
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
