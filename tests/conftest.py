"""What the tests share: devices, seeds, the profile of hypothesis. Imports torch, pytest and hypothesis, no more."""

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import configuration, settings

from tests.helpers.time_limits import pytest_runtest_teardown, pytest_timeout_set_timer  # noqa: F401  hooks of every test

configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "convkit-hypothesis")  # leave the clone clean
settings.register_profile("convkit", deadline=None, derandomize=True, database=None, max_examples=100)
settings.load_profile("convkit")

DEVICES = ["cpu"]
if torch.cuda.is_available():
    DEVICES.append("cuda")
    torch.backends.cudnn.allow_tf32 = False  # TF32 keeps 10 bits: it would drown the accuracy of float32
    torch.backends.cudnn.deterministic = True  # trainings are compared with each other

torch.set_num_threads(1)  # the tests' matrices are small, and several tests run at once


@pytest.fixture(params=DEVICES, scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and the GPU where there is one: every test with tensors takes it."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """The same layers and the same noise in every run, whatever ran before."""
    torch.manual_seed(0)
