"""Images a second of ResNet-18 on 32 x 32 pixels: a plain loop, compiled, and fit by method; host waits a step; PGD."""

import time
import warnings

import torch
import torch.nn.functional as F
from common import DEVICE, OUT, QUICK, Part

from convkit.attacks import pgd
from convkit.audit import measure
from convkit.data import Data
from convkit.methods import network
from convkit.training import fit

part = Part("train", 112)
BATCH, WARM, STEPS = (4, 1, 2) if QUICK else (128, 8, 30)
N = 64 if QUICK else 50_000
g = torch.Generator().manual_seed(0)
images, labels = (
    torch.randint(0, 256, (N, 3, 32, 32), generator=g, dtype=torch.uint8),
    torch.randint(0, 10, (N,), generator=g),
)
DATA = Data("noise", images, labels, images[:1000], labels[:1000], tuple("0123456789")).to(DEVICE)


RATES = {"convnorm": 5e-4}  # at the usual 0.02, ResNet-18 without BatchNorm diverges at its second step


def rate(advance, steps=STEPS):
    for _ in range(WARM):
        advance()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        advance()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps


def in_turns(ours, theirs, rounds=5):
    """Seconds of ours, and of theirs: the least of several rounds each, in turns, since others share the host."""
    both = [[rate(one, max(1, STEPS // 3)) for one in (ours, theirs)] for _ in range(1 if QUICK else rounds)]
    return [min(times) for times in zip(*both, strict=True)]


def plain(compiled, precision, channels_last):
    return rate(plain_step(compiled, precision, channels_last))


def plain_step(compiled, precision, channels_last):
    model = network("resnet18", DATA, "batchnorm", seed=0).to(DEVICE).train()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, fused=not QUICK)
    x, y = DATA.train_batch(slice(0, BATCH))
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x

    def advance():
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = F.cross_entropy(run(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return advance


def fitted(method, **how):
    model = network("resnet18", DATA, method, seed=0)
    every = how.get("record_every", 1)
    knobs = {"lr": RATES[method]} if method in RATES else {}
    records = fit(model, DATA, method, steps=10_000, batch_size=BATCH, knobs=knobs, **how)

    def advance():
        record = next(records)
        if record.diverged:
            raise RuntimeError(record.diverged)

    seconds = rate(advance, max(1, STEPS // every)) / every
    waits = -1
    if not QUICK:
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            advance()
        torch.cuda.set_sync_debug_mode("default")
        waits = sum("synchron" in str(w.message) for w in caught)
    return seconds, waits, torch.cuda.max_memory_allocated() / 2**30


def attempt(name, task):
    if part.out_of_time():
        return
    try:
        torch.cuda.reset_peak_memory_stats()
        found = task()
        seconds, *more = found if isinstance(found, tuple) else (found,)
        part.write(
            what=name,
            images_per_s=BATCH / seconds,
            ms=seconds * 1e3,
            waits=more[0] if more else None,
            GiB=more[1] if more else None,
        )
    except Exception as problem:
        part.write(what=name, failed=f"{type(problem).__name__}: {str(problem)[:300]}")


attempt("plain loop, float32 (TF32 convolutions)", lambda: plain(False, "float32", False))
attempt("plain loop, bfloat16, channels last", lambda: plain(False, "bfloat16", True))
attempt("fit batchnorm float32", lambda: fitted("batchnorm"))
attempt("fit batchnorm bfloat16, channels last", lambda: fitted("batchnorm", precision="bfloat16", channels_last=True))
attempt(
    "fit batchnorm bfloat16, channels last, a record every 10 steps",
    lambda: fitted("batchnorm", precision="bfloat16", channels_last=True, record_every=10),
)
attempt("fit batchnorm float16, channels last", lambda: fitted("batchnorm", precision="float16", channels_last=True))
attempt(
    "fit batchnorm bfloat16, channels last, crop+flip",
    lambda: fitted("batchnorm", precision="bfloat16", channels_last=True, augmentation="crop+flip"),
)
for method in (
    "sphere",
    "norm_decay_l1",
    "convnorm",
    "ocnn",
    "oni",
    "spectral_norm",
    "weight_standardization+groupnorm",
    "operator_norm",
):
    attempt(f"fit {method} bfloat16, channels last", lambda: fitted(method, precision="bfloat16", channels_last=True))


def step_of_fit():
    """A step of fit in turns with a plain one, in bfloat16, channels last."""
    records = fit(
        network("resnet18", DATA, "batchnorm", seed=0),
        *(DATA, "batchnorm"),
        **{"steps": 100_000, "batch_size": BATCH, "precision": "bfloat16", "channels_last": True},
    )
    ours, theirs = in_turns(lambda: next(records), plain_step(False, "bfloat16", True))
    part.write(what="fit and a plain loop in turns", ms=ours * 1e3, ms_plain=theirs * 1e3, share=theirs / ours)


def attack_of_passes():
    """PGD in turns with the passes that it needs: 10 with the gradient of the images and one without."""
    at = x.clone().requires_grad_()

    def passes():
        for _ in range(10):
            torch.autograd.grad(F.cross_entropy(model(at), y), at)
        with torch.no_grad():
            model(x)

    ours, theirs = in_turns(lambda: pgd(model, x, y, 8 / 255, 2 / 255, 10), passes)
    part.write(what="pgd and its passes in turns", ms=ours * 1e3, ms_passes=theirs * 1e3, share=theirs / ours)


if not part.out_of_time():
    step_of_fit()
model = network("resnet18", DATA, "batchnorm", seed=0).to(DEVICE).eval().requires_grad_(False)
x, y = DATA.test_batch(slice(0, BATCH))
if not part.out_of_time():
    attack_of_passes()
attempt("pgd, 10 steps", lambda: rate(lambda: pgd(model, x, y, 8 / 255, 2 / 255, 10), 1 if QUICK else 5))
attempt(
    "measure: norm 2 and condition numbers of 21 layers", lambda: rate(lambda: measure(model, x), 1 if QUICK else 3)
)
if not QUICK:
    attempt("plain loop, bfloat16, channels last, torch.compile", lambda: plain(True, "bfloat16", True))
    from torch.profiler import ProfilerActivity, profile

    fresh = network("resnet18", DATA, "batchnorm", seed=0)
    steps = fit(fresh, DATA, "batchnorm", steps=10_000, batch_size=BATCH, precision="bfloat16", channels_last=True)
    for _ in range(4):
        next(steps)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _ in range(3):
            next(steps)
    with open(f"{OUT}/profile.txt", "a") as file:
        file.write(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=50))
        file.write(seen.key_averages().table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=50))
