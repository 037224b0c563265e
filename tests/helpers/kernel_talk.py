"""A client of a real kernel that sends at any time, as a page does, and waits for what comes back."""

import ast
import os
import subprocess
import time
from queue import Empty

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from tests import ROOT

PATIENCE = 300  # seconds after which an answer counts as lost


class Talk:
    """A client of a fresh kernel, which runs with this Python: it sends at any time, and waits for what comes back."""

    def __init__(self, folder):
        native = KernelSpecManager(kernel_dirs=[])
        self.manager = KernelManager(kernel_name="python3", kernel_spec_manager=native)
        more = {"IPYTHONDIR": str(folder), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        self.manager.start_kernel(cwd=str(ROOT), env=os.environ | more, stderr=subprocess.DEVNULL)
        self.client = self.manager.client()
        self.replies, self.idle = {}, set()

    def __enter__(self):
        try:
            self.client.start_channels()
            self.client.wait_for_ready(timeout=PATIENCE)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()

    def send(self, kind, content, subshell=None, metadata=None):
        message = self.client.session.msg(kind, content, metadata=metadata)
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def execute(self, code, value="None", cell_id=None, **where):
        """Send code, and an expression whose value comes with the reply."""
        content = {"code": code, "silent": "subshell" in where, "user_expressions": {"value": value}}
        return self.send("execute_request", content, metadata={"cellId": cell_id} if cell_id else None, **where)

    def until(self, condition, lost):
        """Take messages until the condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{lost} in {PATIENCE} seconds"
            for take in (self.client.get_shell_msg, self.client.get_iopub_msg):
                try:
                    message = take(timeout=0.02)
                except Empty:
                    continue
                request = message["parent_header"].get("msg_id")
                if message["msg_type"].endswith("_reply"):
                    self.replies[request] = message["content"]
                elif message["content"].get("execution_state") == "idle":
                    self.idle.add(request)

    def value(self, request):
        """The value that a reply brings."""
        self.until(lambda: request in self.replies, "no reply came")
        reply = self.replies[request]
        assert reply["status"] == "ok", reply
        return ast.literal_eval(reply["user_expressions"]["value"]["data"]["text/plain"])

    def subshell(self):
        """A new subshell, as JupyterLab makes one for widgets."""
        self.client.control_channel.send(self.client.session.msg("create_subshell_request", {}))
        return self.client.get_control_msg(timeout=PATIENCE)["content"]["subshell_id"]
