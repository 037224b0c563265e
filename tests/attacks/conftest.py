"""The network that is attacked, and its images."""

import pytest

from tests.helpers.attack_models import digits, trained_network


@pytest.fixture(scope="module")
def model(device):
    return trained_network().to(device)


@pytest.fixture(scope="module")
def images(device):
    return tuple(t.to(device) for t in digits(40))
