"""Two trainings that should be one and the same."""

from collections.abc import Sequence

import pytest
from torch import nn
from torch.testing import assert_close

from convkit.training.plan import Record


def assert_same_training(ours: Sequence[Record], theirs: Sequence[Record], *models: nn.Module) -> None:
    """Assert that records, and the weights of two models, agree: bit for bit on the CPU, nearly on a GPU.

    A GPU may add the same numbers in another order each time.
    """
    exact = not models or next(models[0].parameters()).device.type == "cpu"
    if exact:
        assert list(ours) == list(theirs)
    else:
        assert [(r.step, r.lr) for r in ours] == [(r.step, r.lr) for r in theirs]
        assert [r.loss for r in ours] == pytest.approx([r.loss for r in theirs], rel=1e-3)
    if models:
        ours_, theirs_ = (model.state_dict() for model in models)
        assert_close(ours_, theirs_, **({"rtol": 0, "atol": 0} if exact else {"rtol": 1e-2, "atol": 1e-3}))
