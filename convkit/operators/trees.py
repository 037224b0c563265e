"""What lies in nested lists, tuples and dictionaries, as arguments and results of functions are."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def leaves(tree: Any, kind: type[T]) -> Iterator[T]:
    """Yield what is of a kind, alone or in nested lists, tuples and dictionaries, in their order."""
    if isinstance(tree, kind):
        yield tree
    elif isinstance(tree, Mapping):
        yield from leaves(list(tree.values()), kind)
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from leaves(part, kind)
