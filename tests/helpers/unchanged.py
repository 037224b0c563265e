"""What every look at a network must leave as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.testing import assert_close


@contextmanager
def unchanged(model: nn.Module, *tensors: Tensor) -> Iterator[None]:
    """Assert that the block leaves the model's modes, numbers, gradients and hooks, and the tensors, as they were."""

    def look() -> dict[str, object]:
        return {
            "modes": [module.training for module in model.modules()],
            "hooks": [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()],
            "numbers": {name: t.clone() for name, t in model.state_dict().items() if isinstance(t, Tensor)},
            "learning": [p.requires_grad for p in model.parameters()],
            "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
            "tensors": [t.detach().clone() for t in tensors],
        }

    before = look()
    yield
    assert_close(look(), before, rtol=0, atol=0, equal_nan=True)
