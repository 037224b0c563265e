"""Checks of numbers, names and look-ups: converted to plain Python, or refused in one sentence."""

import difflib
import math
import operator
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Generic, TypeVar

LARGEST = sys.float_info.max
Entry = TypeVar("Entry")


class UnknownNameError(ValueError, KeyError):
    """Raised by a registry without an entry of this name; the message holds the nearest names."""

    __str__ = ValueError.__str__  # that of KeyError puts the sentence in quotes


class Registry(Mapping[str, Entry], Generic[Entry]):
    """A mapping from names to entries of one kind, to which anybody can add by ``register``.

    ``registry[name]`` raises ``UnknownNameError`` with the nearest names for an unknown name.
    """

    def __init__(self, name: str, entries: Mapping[str, Entry] | None = None) -> None:
        self.name, self._entries = name, dict(entries or {})

    def register(self, name: str, entry: Entry, replace: bool = False) -> Entry:
        """Add an entry and return it; raise ``ValueError`` for a name that is taken, unless ``replace`` is True."""
        if not isinstance(name, str) or not name:
            raise ValueError(f"{self.name} needs a name for its new entry, got {described(name)}; give it a word")
        if name in self._entries and not replace:
            raise ValueError(f"{self.name} has an entry {name!r}; take another name, or replace it by replace=True")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> Entry:
        if not isinstance(name, str) or name not in self._entries:
            wanted = name.lower() if isinstance(name, str) else ""
            words = difflib.get_close_matches(wanted, [key.lower() for key in self], n=3, cutoff=0.3)
            near = [key for key in self if key.lower() in words]
            which = f"near it: {', '.join(near)}" if near else f"there are {', '.join(self) or 'none yet'}"
            raise UnknownNameError(f"{self.name} has no {described(name)}; {which}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(self)})"


def plain(value: Any) -> Any:
    """Return ``value`` as plain Python, which JSON and checkpoints can hold; anything else is returned as it is.

    NumPy scalars, 0-d arrays and 0-d tensors on any device become numbers, larger ones nested lists; fractions and
    decimals become floats; subclasses of ``int``, ``float``, ``str`` and ``tuple`` (``np.float64``, ``np.str_``, enums,
    ``torch.Size``) become the type itself. Lists, tuples and mappings are converted entry by entry.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(map(plain, value))
    if isinstance(value, str):
        return str.__str__(value)
    if getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M"):
        return value  # NumPy's times: numbers of no fixed unit
    try:
        if isinstance(value, Integral):
            return int(value)
        if isinstance(value, Real | Decimal):
            return float(value)
        return plain(value.tolist()) if hasattr(value, "tolist") else value
    except Exception:  # a signaling NaN, a tensor without numbers (meta), a class in place of its value
        return value


def real(value: Any) -> float | None:
    """Return ``value`` as a plain finite ``int`` or ``float``; ``None`` for everything else, booleans included."""
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) <= LARGEST:
        return None
    return found


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf, advice: str = "") -> float:
    """Return ``value`` as a plain finite number within the limits; raise ``ValueError``, with its name, otherwise."""
    found = real(value)
    if found is None or not low <= found <= high:
        kind = "number" if math.isfinite(high) else "finite number"
        raise ValueError(f"{name} must be a {kind}{_limits(low, high)}, got {described(value)}{advice}")
    return found


def positive(name: str, value: Any, advice: str = "") -> float:
    """Return ``value`` as a plain finite number above 0; raise ``ValueError``, with its name, otherwise."""
    found = real(value)
    if found is None or found <= 0:
        raise ValueError(f"{name} must be a positive number, got {described(value)}{advice}")
    return found


def whole(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, advice: str = "", floats: bool = False
) -> int:
    """Return ``value`` as a plain ``int`` within the limits; raise ``ValueError``, with its name, otherwise.

    With ``floats``, floats such as 64.0 are accepted.
    """
    found = plain(value)
    if floats and isinstance(found, float) and found.is_integer():
        found = int(found)
    try:
        result = None if isinstance(found, bool | float) else operator.index(found)
    except TypeError:
        result = None
    if result is None or not low <= result <= high:
        raise ValueError(f"{name} must be a whole number{_limits(low, high)}, got {described(value)}{advice}")
    return result


def seed_number(value: Any) -> int:
    """Return a seed as a plain ``int``; raise ``ValueError`` for one that torch's generators do not take."""
    seed = whole("seed", value)
    if not -(2**63) <= seed < 2**64:
        raise ValueError(
            f"seed must be from -2^63 to 2^64 - 1, as torch takes it, got {described(seed)}; small ones do"
        )
    return seed


def sequence(name: str, values: Any) -> tuple[Any, ...]:
    """Return the entries of a list, a tuple, an array or a tensor as a tuple of plain values.

    Raises ``ValueError``, with the name, for anything that is not several values.
    """
    found = plain(values)
    if not isinstance(found, Iterable) or isinstance(found, str | bytes | Mapping | set | frozenset):
        raise ValueError(f"{name} must be numbers in a list or a tuple, got {described(values)}")
    return tuple(map(plain, found))


def few(names: Sequence[str]) -> str:
    """Return the first names, and how many others there are."""
    return (", ".join(names[:3]) or "nothing") + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def described(value: Any) -> str:
    """Return how an error message shows ``value``: its ``repr`` if that is short, else its type and shape."""
    try:
        text = repr(plain(value))
    except ValueError:  # an int of thousands of digits
        text = ""
    if 0 < len(text) <= 60:
        return text
    shape = getattr(value, "shape", None)
    return f"a value of type {type(value).__name__}" + (f" and shape {tuple(shape)}" if shape is not None else "")


def _limits(low: float, high: float) -> str:
    """Return the limits of a number in words."""
    if low > -math.inf and high < math.inf:
        return f" from {low:g} to {high:g}"
    return f" of at least {low:g}" if low > -math.inf else ""
