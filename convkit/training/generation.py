"""What a generator makes, and numbers that judge it and the discriminator beside it."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from convkit.checks import whole
from convkit.data.dataset import Data
from convkit.loading import needs
from convkit.models.network import Network
from convkit.operators.dtypes import as_input
from convkit.operators.evaluation import apart, evaluation_copy
from convkit.randomness import seeded

SURE = 0.9  # the confidence from which on a classifier has seen a class


@torch.no_grad()
def make_images(generator: nn.Module, z: Tensor | int, seed: int = 0, batch_size: int = 500) -> Tensor:
    """Return the images that a generator makes in evaluation mode, ``(N, channels, height, width)`` in [0, 1].

    The generator is not changed.

    Args:
        generator: A network that begins with a linear layer from z.
        z: The inputs ``(N, latent)``, or their number N; then they are drawn from the seed, normally distributed.
        seed: Of that draw, which is the same on all devices.
        batch_size: Number of images per pass; it bounds the memory.

    >>> from convkit.models import sngan_generator
    >>> make_images(sngan_generator(channels=4, image_size=8, latent=3), 10).shape
    torch.Size([10, 3, 8, 8])
    """
    if not isinstance(z, Tensor):
        z = torch.randn(
            *(whole("z", z, 1), latent_of(generator)),
            generator=torch.Generator().manual_seed(seed),
            dtype=torch.float32,
            device="cpu",
        ).to(next(generator.parameters()).device)
    with evaluation_copy(generator, None, apart) as copy:
        return torch.cat([copy(as_input(generator, part)) for part in z.split(batch_size)])


def latent_of(generator: nn.Module) -> int:
    """Return the length of z; raise ``ValueError`` for a generator that has no linear layer to read it from."""
    found = next((m.in_features for m in generator.modules() if isinstance(m, nn.Linear)), None)
    if found is None:
        raise ValueError("a generator must begin with a linear layer from z, got one without; use sngan_generator")
    return found


def lipschitz_between(discriminator: nn.Module, real: Tensor, made: Tensor, points: int = 5) -> float:
    """Return the largest gradient norm of a discriminator on the segments from real to made images.

    A lower bound of its Lipschitz constant in the 2-norm of images in [0, 1], where a generator meets it; exact for a
    discriminator that is linear. In evaluation mode; the network is not changed.

    Args:
        discriminator: A network from images to one number each.
        real, made: Images ``(N, channels, height, width)``, as many of each.
        points: Number of points on each segment, ends included.

    >>> plane = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    >>> _ = plane[1].weight.data.fill_(3.0)
    >>> lipschitz_between(plane, torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    6.0
    """
    parts = torch.linspace(0, 1, whole("points", points, 2), dtype=real.dtype, device=real.device)
    between = (real + parts.view(-1, *[1] * real.ndim) * (made - real)).flatten(0, 1).detach().requires_grad_()
    with evaluation_copy(discriminator, None, apart) as copy, torch.enable_grad():
        (slope,) = torch.autograd.grad(copy(between).sum(), between)
    return slope.flatten(1).norm(dim=1).max().item()


# ---- numbers ---------------------------------------------------------------------------------------------------------
def inception_score(probabilities: Tensor) -> float:
    """Return the exponential of the mean divergence of each image's class probabilities from their mean.

    Salimans et al. 2016. From 1, if all images look alike to the classifier, to the number of classes, if it is sure of
    each and all classes are equally frequent. Computed in float64.

    Args:
        probabilities: ``(N, classes)``, rows that sum to 1.

    Raises ``ValueError`` for other numbers.

    >>> round(inception_score(torch.eye(4)), 6)
    4.0
    """
    p = probabilities.double()
    if p.ndim != 2 or not len(p) or not (p >= 0).all() or not torch.allclose(p.sum(1), p.new_ones(()), atol=1e-4):
        raise ValueError(f"needed probabilities (N, classes), got shape {tuple(p.shape)}; take the softmax of logits")
    mean = p.mean(0)
    return float((torch.special.xlogy(p, p) - torch.special.xlogy(p, mean)).sum(1).mean().exp())


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean ``(d,)`` and the covariance ``(d, d)`` of features ``(N, d)``, in float64.

    The covariance is divided by N - 1. Raises ``ValueError`` for fewer than two rows.

    >>> moments(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))[1].tolist()
    [[2.0, 0.0], [0.0, 0.0]]
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"needed the features (N, d) of two images or more, got shape {tuple(features.shape)}")
    return features.double().mean(0), features.double().T.cov().reshape(2 * features.shape[1:])


def frechet_distance(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> float:
    """Return the squared Fréchet distance of two normal distributions, on which FID is based (Heusel et al. 2017).

    ``|m - n|^2 + tr(S) + tr(T) - 2 tr (S^(1/2) T S^(1/2))^(1/2)``. The last trace is the sum of the singular values of
    ``S^(1/2) T^(1/2)``, which also holds for singular covariances, where a root of ``S T`` need not exist. Computed in
    float64.

    Args:
        mean, other_mean: ``(d,)``.
        covariance, other_covariance: ``(d, d)``, symmetric, no eigenvalue below 0 but for rounding.

    Raises ``ValueError`` for numbers that are not finite, and for a matrix that is no covariance.

    >>> zero, one = torch.zeros(2), torch.eye(2)
    >>> round(frechet_distance(zero, one, zero + 3, 4 * one), 6)
    20.0
    """
    gap, S, T = mean.double() - other_mean.double(), covariance.double(), other_covariance.double()
    if not gap.isfinite().all():
        raise ValueError("needed finite means, got NaN or infinity; look for images that are not finite")
    shared = torch.linalg.svdvals(_root(S) @ _root(T)).sum()
    return max(0.0, float(gap.square().sum() + S.trace() + T.trace() - 2 * shared))


def precision_recall(real: Tensor, made: Tensor, k: int = 3) -> tuple[float, float]:
    """Return the share of made features among the real ones, and of real ones among the made.

    Kynkäänniemi et al. 2019. A feature is among others if it lies no farther from one of them than the k-th nearest of
    the others does. Exact, from all distances.

    Args:
        real, made: Features ``(N, d)`` and ``(M, d)``, more than ``k`` of each.
        k: Which neighbor.

    Raises ``ValueError`` for ``k`` features or fewer.

    >>> line = torch.arange(6.0)[:, None]
    >>> precision_recall(line, line[:5] + 0.1, k=1)
    (1.0, 1.0)
    """
    k = whole("k", k, 1)
    if min(len(real), len(made)) <= k:
        raise ValueError(f"needed more than k = {k} features of each kind, got {len(real)} and {len(made)}; give more")
    real, made = real.double(), made.double()

    def share(ours: Tensor, theirs: Tensor) -> float:
        reach = torch.cdist(theirs, theirs).kthvalue(k + 1, dim=1).values  # the nearest one is itself
        return float((torch.cdist(ours, theirs) <= reach).any(1).double().mean())

    return share(made, real), share(real, made)


@torch.no_grad()
def generation_scores(
    classifier: Network, data: Data, made: Tensor, name: str = "cnn9", k: int = 3
) -> dict[str, float]:
    """Return what a classifier of the kit says of made images, by numbers that bear its name.

    These are not IS and FID, which are defined by one network trained on ImageNet: "FD-cnn9" is the Fréchet distance of
    the inputs of the head of cnn9, for made images and the test images.

    Args:
        classifier: A network of ``MODELS``, trained on the data.
        data: Of which the test images are the real ones.
        made: Images ``(N, channels, height, width)`` in [0, 1], two or more.
        name: What the numbers are named after.
        k: See ``precision_recall``.

    Returns:
        ``IS-``, ``FD-``, ``precision-``, ``recall-`` and ``classes-NAME``; the last is the number of classes of which
        the classifier is sure, at a confidence of 0.9, for at least one image.

    Raises ``ValueError`` for too few images, and where a network without a step ``head`` is given.
    """
    if not isinstance(getattr(classifier, "head", None), nn.Linear):
        raise ValueError("needed a network of MODELS, whose last step is a linear layer 'head'; got one without")
    real = data.test_batch(slice(None))[0]
    with evaluation_copy(classifier, None, apart) as copy:
        names = [name for name, _ in copy.named_children()]
        body: Any = copy[: names.index("head")]
        features = [torch.cat([body(as_input(classifier, x)) for x in _parts(images)]) for images in (real, made)]
        probabilities = copy.get_submodule("head")(features[1]).softmax(1)
    sure = probabilities.max(1)
    precision, recall = precision_recall(features[0], features[1], k)
    return {
        f"IS-{name}": inception_score(probabilities),
        f"FD-{name}": frechet_distance(*moments(features[0]), *moments(features[1])),
        f"precision-{name}": precision,
        f"recall-{name}": recall,
        f"classes-{name}": float(sure.indices[sure.values >= SURE].unique().numel()),
    }


@torch.no_grad()
def inception_metrics(
    real: Tensor, made: Tensor, features: nn.Module, logits: nn.Module | None = None, splits: int = 10
) -> dict[str, float]:
    """Return FID, and IS where ``logits`` is given, by torchmetrics with the Inception network that the reader brings.

    These names are right for the network of the published numbers alone, such as ``torch.jit.load`` returns it from a
    file with its weights (Heusel et al. 2017). The kit has no such file and loads none.

    Args:
        real, made: Images ``(N, channels, height, width)`` in [0, 1]. Grey ones are repeated to three channels.
        features: Returns ``(N, d)`` from uint8 images ``(N, 3, height, width)``, resized by itself.
        logits: Returns ``(N, classes)`` from the same, in front of the softmax.
        splits: IS is the mean over so many parts of the made images.

    Raises ``ValueError`` for images that are not finite, and ``MissingExtraError`` without torchmetrics.
    """
    with needs("gan", "FID and IS"):
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.inception import InceptionScore

    for images in (real, made):
        if images.ndim != 4 or len(images) < 2 or not images.isfinite().all():
            raise ValueError(f"needed two images or more, all finite, got shape {tuple(images.shape)}")
    # torchmetrics asks a network without num_features for them by an image of a size of its own
    features.num_features = features(_bytes(real[:1])).shape[-1]  # pyright: ignore[reportArgumentType]
    distance = FrechetInceptionDistance(features).to(real.device)
    for images, are_real in ((real, True), (made, False)):
        for x in _parts(images):
            distance.update(_bytes(x), real=are_real)
    found = {"FID": float(distance.compute())}
    if logits is not None:
        answers = torch.cat([logits(_bytes(x)) for x in _parts(made)])
        with warnings.catch_warnings(), seeded(0):  # it shuffles the images
            warnings.simplefilter("ignore", UserWarning)  # that it keeps all answers in memory
            score = InceptionScore(nn.Identity(), splits=splits)
            score.update(answers)
            found["IS"] = float(score.compute()[0])
    return found


# ---- private ---------------------------------------------------------------------------------------------------------
def _parts(images: Tensor, size: int = 250) -> Iterator[Tensor]:
    yield from images.split(size)


def _bytes(images: Tensor) -> Tensor:
    """Return images of three channels with whole numbers from 0 to 255."""
    return (images.clamp(0, 1) * 255).round().byte().expand(-1, 3, -1, -1)


def _root(covariance: Tensor) -> Tensor:
    """Return the symmetric root of a covariance; raise ``ValueError`` for a matrix that is none."""
    if not covariance.isfinite().all():
        raise ValueError("needed a finite covariance, got NaN or infinity; look for images that are not finite")
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    scale = float(values.abs().max())
    if float((covariance - covariance.T).abs().max()) > 1e-6 * scale or float(values[0]) < -1e-6 * scale:
        raise ValueError("needed a covariance, symmetric without negative eigenvalues, got another matrix")
    return vectors * values.clamp(min=0).sqrt() @ vectors.T
