"""Run only the tests that need CUDA, on a pretended GPU where there is none, with few examples of hypothesis.

``pytest -p tests.gpu.pretended.fakecuda_quick``: the cases of the fixture ``device`` on "cuda", and those of tests/gpu.
"""

import importlib.util
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent

version = runpy.run_path(str(Path(importlib.util.find_spec("torch").origin).with_name("version.py")))
if version["cuda"] is None and version["hip"] is None:  # before torch is imported, which looks for a GPU at once
    sys.path.insert(0, str(HERE))
    import fakecuda  # noqa: F401


def pytest_configure(config):
    from hypothesis import settings

    settings.register_profile("quick", deadline=None, derandomize=True, database=None, max_examples=5)
    settings.load_profile("quick")


def pytest_report_header(config):
    import torch

    return f"device: {torch.cuda.get_device_name()}"


def pytest_collection_modifyitems(config, items):
    chosen = [item for item in items if _on_cuda(item) or item.path.is_relative_to(HERE.parent)]
    others = set(items).difference(chosen)
    config.hook.pytest_deselected(items=[item for item in items if item in others])
    items[:] = chosen


def _on_cuda(item):
    call = getattr(item, "callspec", None)
    return call is not None and call.params.get("device") == "cuda"
