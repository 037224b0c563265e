"""Numbers where they enter: made plain from whatever libraries they come, or refused in one sentence."""

import enum
import math
import pickle
from collections import namedtuple
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convkit.checks import (
    Registry,
    UnknownNameError,
    described,
    number,
    plain,
    positive,
    real,
    seed_number,
    sequence,
    whole,
)
from tests.helpers.refusals import refused


class Size(enum.IntEnum):
    THREE = 3


class Word(str, enum.Enum):  # noqa: UP042 - as it is in older code
    A = "a"


Pair = namedtuple("Pair", "a b")
FLOATS = [
    *(kind(0.25) for kind in (np.float16, np.float32, np.float64, np.longdouble)),
    *(np.array(0.25), torch.tensor(0.25), torch.tensor(0.25, dtype=torch.bfloat16), Fraction(1, 4), Decimal("0.25")),
    *(torch.tensor(0.25, requires_grad=True), np.array(Fraction(1, 4), dtype=object)),
]
INTS = [
    *(kind(3) for kind in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)),
    *(np.array(3), np.array(3, dtype=np.uint8), torch.tensor(3), torch.tensor(3, dtype=torch.uint8), Size.THREE),
]
NOT_NUMBERS = [
    *(True, np.True_, np.array(False), torch.tensor(True), None, "0.25", np.str_("3"), b"3", 1j, np.complex64(1)),
    *(math.nan, math.inf, -math.inf, np.float32("nan"), torch.tensor(torch.inf), Decimal("sNaN"), Decimal("1e999")),
    *([0.25], (1,), np.array([0.25]), torch.tensor([3]), np.ma.masked, np.float64, {}, object(), 10**400, 10**5000),
    *(
        np.timedelta64(3, "s"),
        np.datetime64("2020"),
        torch.empty((), device="meta"),
        torch.tensor(1j),
        Fraction(10**400),
    ),
]


def name(value) -> str:
    return f"{type(value).__module__}.{type(value).__name__} {getattr(value, 'dtype', '')}"


@pytest.mark.parametrize("value", FLOATS, ids=name)
def test_a_number_of_any_library_becomes_a_float(value):
    for found in (plain(value), real(value), number("x", value), number("x", value, 0, 1), positive("x", value)):
        assert (type(found), found) == (float, 0.25)
    refused(r"^x must be a whole number of at least 1, got 0\.25; give one$", whole, "x", value, 1, advice="; give one")


@pytest.mark.parametrize("value", INTS, ids=name)
def test_a_whole_number_of_any_library_becomes_an_int(value):
    found = (plain(value), real(value), number("x", value), whole("x", value), seed_number(value), positive("x", value))
    assert [(type(one), one) for one in found] == [(int, 3)] * 6


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=name)
def test_what_is_no_number_is_refused_in_one_sentence(value):
    assert real(value) is None
    with pytest.raises(ValueError, match=r"^x must be a number from 0 to 1, got ") as caught:
        number("x", value, 0, 1)
    assert len(str(caught.value)) < 120
    if not isinstance(value, int) or isinstance(value, bool):
        refused(r"^x must be a whole number, got ", whole, "x", value, floats=True)
    for below in (value, 0, -1, np.float32(0)):
        refused(r"^x must be a positive number, got .*; 1 is usual$", positive, "x", below, "; 1 is usual")


def test_limits_are_said_and_a_float_is_a_whole_number_only_where_that_is_asked_for():
    assert number("x", 1, 1, 1) == whole("x", 1, 1, 1) == 1
    refused(r"^x must be a number from 1e-06 to 10, got 11$", number, "x", np.int64(11), 1e-6, 10)
    refused(r"^x must be a finite number of at least 2, got 1$", number, "x", 1, 2)
    refused(r"^x must be a finite number, got nan$", number, "x", math.nan)
    found = whole("x", np.float64(64), floats=True)
    assert (type(found), found) == (int, 64)
    for value, floats in ((64.0, False), (64.5, True), (math.inf, True)):
        refused(r"^x must be a whole number, got", whole, "x", value, floats=floats)


def test_seeds_are_what_torch_takes():
    for seed in (-(2**63), 0, 2**64 - 1, np.uint64(2**64 - 1)):
        torch.Generator().manual_seed(seed_number(seed))
    for seed in (-(2**63) - 1, 2**64, 1.0, True):
        refused(r"^seed must be", seed_number, seed)


@pytest.mark.parametrize(
    "values",
    [
        *([16, 32, 64], (np.int64(16), 32, torch.tensor(64)), np.array([16, 32, 64], dtype=np.uint8)),
        *(torch.tensor([16, 32, 64]), torch.Size([16, 32, 64]), range(16, 65, 16), map(np.int32, (16, 32, 64))),
    ],
    ids=name,
)
def test_several_numbers_become_a_plain_tuple(values):
    found = sequence("x", values)
    assert found in ((16, 32, 64), (16, 32, 48, 64))
    assert type(found) is tuple
    assert {type(entry) for entry in found} == {int}


def test_what_is_not_several_numbers_is_refused():
    for value in (16, "16", np.array(16), None, {16: 32}, {16, 32}, object()):
        refused(r"^x must be numbers in a list or a tuple, got ", sequence, "x", value)


def test_lists_and_mappings_are_gone_through_and_other_things_left_alone():
    thing = object()
    found = plain({np.str_("a"): [np.float32(0.5), {"b": Pair(np.int8(1), thing)}], 2: torch.tensor([[1, 2]])})
    assert found == {"a": [0.5, {"b": (1, thing)}], 2: [[1, 2]]}
    assert [type(key) for key in found] == [str, int]
    assert type(found["a"][1]["b"]) is tuple
    assert (type(plain(Word.A)), plain(Word.A)) == (str, "a")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_plain_python_stays_as_it_is(value):
    assert repr(plain(value)) == repr(value)


def test_an_error_names_a_long_value_by_its_type_and_shape():
    assert described(np.zeros((3, 100))) == "a value of type ndarray and shape (3, 100)"
    assert described(list(range(100))) == "a value of type list"
    assert described(torch.tensor(0.5)) == "0.5"


# ---- registries ----------------------------------------------------------------------------------------------------
def test_entries_are_found_by_name_in_the_order_in_which_they_came():
    given = {"square": 4}
    registry = Registry("SHAPES", given)
    given["star"] = 5  # which does not change the registry
    assert registry.register("disc", 0) == 0
    assert registry.register("Triangle", 3) == 3
    assert list(registry.items()) == [("square", 4), ("disc", 0), ("Triangle", 3)]
    assert (registry["disc"], registry.get("star"), "disc" in registry, "star" in registry) == (0, None, True, False)
    assert (len(registry), repr(registry)) == (3, "SHAPES(square, disc, Triangle)")
    assert list(given) == ["square", "star"]


def test_a_name_that_is_taken_is_replaced_only_where_that_is_asked_for():
    registry = Registry("SHAPES", {"square": 4, "disc": 0})
    words = r"^SHAPES has an entry 'square'; take another name, or replace it by repl"
    refused(words, registry.register, "square", 5)
    for word in ("", None, 3, ["square"]):
        refused(r"^SHAPES needs a name for its new entry, got .*; give it a word", registry.register, word, 1)
    assert registry["square"] == 4
    assert registry.register("square", 5, replace=True) == 5
    assert list(registry.items()) == [("square", 5), ("disc", 0)]  # in its old place


def test_an_unknown_name_is_answered_with_the_nearest_or_with_all_by_an_error_of_both_kinds():
    registry = Registry("SHAPES", {"square": 4, "Squares": 8, "disc": 0, "ring": 0})
    for unknown, words in (
        ("sqare", "'sqare'; near it: square, Squares"),
        ("RING", "'RING'; near it: ring"),
        ("xyz", "'xyz'; there are square, Squares, disc, ring"),
        ("", "''; there are square, Squares, disc, ring"),
        (None, "None; there are square, Squares, disc, ring"),
        (["disc"], "['disc']; there are square, Squares, disc, ring"),
    ):
        with pytest.raises(UnknownNameError) as caught:
            registry[unknown]
        assert str(caught.value) == f"SHAPES has no {words}"
        assert {ValueError, KeyError} <= set(type(caught.value).__mro__)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    refused(r"^SHAPES has no 'disc'; there are none yet$", Registry("SHAPES").__getitem__, "disc")
