"""One line for each question that has no answer."""

from collections.abc import Callable

import pytest


def refused(
    words: str, call: Callable[..., object], /, *args, error: type[BaseException] = ValueError, **kwargs
) -> None:
    """Assert that the call raises ``error`` with a message that matches the pattern ``words`` (if any)."""
    with pytest.raises(error, match=words or None):
        call(*args, **kwargs)
