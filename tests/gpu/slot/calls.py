"""The library's own calls on the device, with their error against the CPU's answer, beside what people use."""

import copy

import torch
from common import DEVICE, OUT, QUICK, Part
from torch import nn

from convkit.bench.baselines import PlainConvNorm, gram_iteration, power_method, svdvals_of_full_symbol
from convkit.bounds import torus_bound
from convkit.data import trained_kernels
from convkit.normalization import ConvNorm2d
from convkit.norms import certify, operator_norm
from convkit.operators import ConvOperator
from convkit.projections.clipping import clip_and_crop
from convkit.spectra import channel_condition_numbers, leading_singular_values, singular_values

part = Part("calls", 95)
torch.set_num_threads(1 if QUICK else 16)  # for what runs on the host


def random(c, n, dtype=torch.float32, **how):
    g = torch.Generator().manual_seed(c + n)
    return ConvOperator(
        (torch.randn(c, c, 3, 3, generator=g, dtype=torch.float64) / (3 * c**0.5)).to(dtype), (n, n), **how
    )


def pair(A):
    return ConvOperator(A.kernel.to(DEVICE), A.input_shape, A.stride, A.padding, A.dilation, A.groups, A.padding_mode)


def relative(truth):
    return lambda found: (found.detach().cpu().double() - truth.double()).abs().max() / truth.abs().max()


# ---- default precision: does a float32 convolution keep float32's digits (TF32)? ----
A = random(64, 16)
x = torch.randn(8, 64, 16, 16, generator=torch.Generator().manual_seed(0))
part.time("A(x) float32", "64@16", "as torch is by default", lambda: pair(A)(x.to(DEVICE)), error=relative(A(x)))
torch.backends.cudnn.conv.fp32_precision = "ieee"
part.time("A(x) float32", "64@16", "conv.fp32_precision = ieee", lambda: pair(A)(x.to(DEVICE)), error=relative(A(x)))

# ---- ConvNorm, forward and backward, 128 images ----
batch = 4 if QUICK else 128
for c, n in [(8, 8)] if QUICK else [(64, 32), (128, 16), (256, 8), (512, 4)]:
    x = torch.randn(batch, c, n, n, device=DEVICE).requires_grad_()
    layers = {
        "conv + BatchNorm": nn.Sequential(nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c)),
        "ConvNorm2d zeros": ConvNorm2d(c, c, 3, 1, 1),
        "ConvNorm2d circular": ConvNorm2d(c, c, 3, 1, 1, padding_mode="circular"),
        "as published": PlainConvNorm(c, c, 3, 1),
    }
    for name, layer in layers.items():
        layer = layer.to(DEVICE)
        w = torch.randn_like(layer(x))
        if isinstance(layer, ConvNorm2d):  # the GPU's arithmetic against the CPU's, both in float32
            few = copy.deepcopy(layer).cpu()(x[:2].detach().cpu())
            part.write(
                question="ConvNorm2d against the CPU", case=f"{c}@{n}, {name}", error=relative(few)(layer(x[:2])).item()
            )
        part.time(
            "forward + backward",
            f"{c}@{n}, {batch} images",
            name,
            lambda: torch.autograd.grad(layer(x), [x, *layer.parameters()], w),
        )
        if name == "as published":
            continue  # its FFT does not take bfloat16
        with torch.autocast("cuda", torch.bfloat16):
            part.time(
                "forward + backward, bf16 autocast",
                f"{c}@{n}, {batch} images",
                name,
                lambda: torch.autograd.grad(layer(x), [x, *layer.parameters()], w.to(layer(x).dtype)),
            )
    if QUICK:
        continue
    for mode in ("zeros", "circular"):
        try:
            layer = ConvNorm2d(c, c, 3, 1, 1, padding_mode=mode).to(DEVICE)
            graphed = torch.cuda.make_graphed_callables(layer, (x,))
            w = torch.randn_like(x)
            part.time(
                "forward + backward",
                f"{c}@{n}, {batch} images",
                f"ConvNorm2d {mode} in a CUDA graph",
                lambda: torch.autograd.grad(graphed(x), [x, *graphed.parameters()], w),
            )
        except Exception as problem:
            part.write(question=f"CUDA graph of ConvNorm2d {mode}", case=f"{c}@{n}", failed=str(problem)[:300])

# ---- one product with A^T A, as Lanczos needs it ----
for c, n in [(8, 8)] if QUICK else [(64, 32), (128, 32), (512, 8), (512, 32)]:
    for dtype in (torch.float32, torch.float64):
        for mode in ("circular", "zeros"):
            B = pair(random(c, n, dtype, padding=1, padding_mode=mode))
            for images in (1, 4):
                v = torch.randn(images, c, n, n, dtype=dtype, device=DEVICE)
                name = f"{str(dtype)[6:]}, {mode}, {images} images"
                part.time("A.adjoint(A(x))", f"{c}@{n}", name, lambda: B.adjoint(B(v)), rounds=3)

# ---- spectra and norms ----
trained = trained_kernels()
for c, n in [(8, 8)] if QUICK else [(16, 32), (64, 32), (128, 16), (256, 8), (512, 4)]:
    for dtype in (torch.float64,):
        A = random(c, n, dtype)
        B, truth = pair(A), singular_values(A)
        part.time("singular_values", f"{c}@{n}", "convkit", lambda: singular_values(B), rounds=3, error=relative(truth))
        part.time("singular_values", f"{c}@{n}", "convkit on the host's 16 cores", lambda: singular_values(A), rounds=3)
        if c <= 64:
            part.time(
                "singular_values",
                f"{c}@{n}",
                "torch svdvals of the full symbol",
                lambda: svdvals_of_full_symbol(B),
                rounds=1,
            )
cases = (
    [("random 8@8", random(8, 8))]
    if QUICK
    else [
        ("trained 64@32", ConvOperator(trained["64 to 64"], (32, 32))),
        ("trained 128@32", ConvOperator(trained["128 to 128"], (32, 32))),
        ("random 128@32", random(128, 32)),
        ("random 512@8", random(512, 8)),
        ("random 512@32", random(512, 32)),
    ]
)
for name, A in cases:
    B = pair(A)
    big = A.kernel.shape[0] >= 512
    truth = None if big and A.input_shape[0] > 8 else operator_norm(A, 2)
    part.time(
        "operator_norm 2",
        name,
        "convkit",
        lambda: operator_norm(B, 2),
        rounds=5,
        error=None if truth is None else relative(truth),
    )
    if not big:
        part.time("operator_norm 2", name, "convkit on the host", lambda: operator_norm(A, 2), rounds=3)
        part.time(
            "operator_norm 2",
            name,
            "Gram iteration, 6 steps",
            lambda: gram_iteration(B, 6),
            rounds=3,
            error=relative(truth),
        )
        part.time(
            "operator_norm 2",
            name,
            "power method, 100 steps",
            lambda: power_method(B, 100),
            rounds=3,
            error=relative(truth),
        )
        K = ConvOperator(B.kernel.clone().requires_grad_(), B.input_shape)
        part.time(
            "gradient of the norm",
            name,
            "convkit",
            lambda: torch.autograd.grad(operator_norm(K, 2), K.kernel)[0],
            rounds=3,
        )
        part.time("certify", name, "convkit", lambda: certify(B, 1.0001 * float(truth)), rounds=3)
        for bound, what in ((1.0, "all over"), (0.9 * float(truth), "few over")):
            cut = clip_and_crop(A, bound).kernel
            part.time(
                "clip_and_crop",
                f"{name}, {what}",
                "convkit",
                lambda b=bound: clip_and_crop(B, b).kernel,
                rounds=3,
                error=relative(cut),
            )
        part.time("channel_condition_numbers", name, "convkit", lambda: channel_condition_numbers(B), rounds=3)
Z = random(16, 16, torch.float64, padding=1, padding_mode="zeros")
for k in (1, 6):
    part.time(
        f"leading_singular_values, {k}",
        "16@16 zeros",
        "convkit",
        lambda k=k: leading_singular_values(pair(Z), k),
        rounds=3,
        error=relative(leading_singular_values(Z, k)),
    )
part.time("torus_bound", "16@16 zeros", "convkit", lambda: torus_bound(pair(Z)))

# ---- 1 and infinity, and where the time of three calls goes ----
for c, n in [(8, 8)] if QUICK else [(64, 32), (512, 8)]:
    B = pair(random(c, n, padding=1, padding_mode="zeros"))
    for order in (1, torch.inf):
        part.time(f"operator_norm {order}", f"{c}@{n} zeros", "convkit", lambda order=order: operator_norm(B, order))
if not QUICK:
    from torch.profiler import ProfilerActivity, profile

    A, B = pair(random(512, 32)), pair(ConvOperator(trained["64 to 64"], (32, 32)))
    Z = pair(random(64, 32, padding=1, padding_mode="zeros"))
    part.time("operator_norm 2", "64@32 zeros", "convkit", lambda: operator_norm(Z, 2), rounds=3)
    for name, task in {
        "norm 512@32": lambda: operator_norm(A, 2),
        "clip 64@32": lambda: clip_and_crop(B, 1.0),
        "norm 64@32": lambda: operator_norm(B, 2),
    }.items():
        task()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            task()
            torch.cuda.synchronize()
        with open(f"{OUT}/profile.txt", "a") as file:
            for order in ("self_cpu_time_total", "self_cuda_time_total"):
                print(name, seen.key_averages().table(sort_by=order, row_limit=18, max_name_column_width=50), file=file)
