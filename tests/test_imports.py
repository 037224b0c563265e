"""Importing a module has no side effects: no hook on anybody's optimizer, no message of a widget, no output."""

import subprocess
import sys

import pytest

from tests import ROOT

CODE = """
import importlib, pkgutil, sys, threading
import torch, comm
from torch.optim import optimizer

opened = []
comm.create_comm = lambda *args, **kwargs: opened.append(args)
threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
state = torch.get_rng_state()
import convkit
names = [module.name for module in pkgutil.walk_packages(convkit.__path__, "convkit.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
assert len(names) > 100
assert not optimizer._global_optimizer_pre_hooks and not optimizer._global_optimizer_post_hooks
assert not opened
assert threading.active_count() == 1
assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)
assert torch.equal(torch.get_rng_state(), state)
"""


@pytest.mark.slow
def test_importing_every_module_changes_nothing_and_says_nothing():
    command = [sys.executable, "-W", "error", "-c", CODE]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
