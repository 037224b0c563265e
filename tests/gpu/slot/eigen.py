"""Which solver for many Hermitian matrices: torch, cuSOLVER's batched one, CuPy, the host's cores; Cholesky; GEMM."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from common import DEVICE, QUICK, Part

part = Part("eigen", 75)
SIZES = [(8, 16), (4, 40)] if QUICK else [(514, 32), (514, 64), (130, 128), (34, 256), (10, 512), (514, 128)]


def made(F, n, dtype):
    g = torch.Generator().manual_seed(n)
    B = torch.randn(F, n, n, dtype=dtype, generator=g) / n**0.5
    return (B @ B.mH), B


def on_host(G):
    host = G.cpu().numpy()
    with ThreadPoolExecutor(16) as pool:
        parts = list(pool.map(np.linalg.eigvalsh, np.array_split(host, min(len(host), 64))))
    return torch.from_numpy(np.concatenate(parts)).to(DEVICE)


for F, n in SIZES:
    host, B = made(F, n, torch.complex128)
    truth = torch.from_numpy(np.linalg.eigvalsh(host[:8].numpy()))
    G, B = host.to(DEVICE), B.to(DEVICE)
    case = f"{F} x {n}"

    def off(values):
        values = values[0] if isinstance(values, tuple) else values
        return (values[: len(truth)].cpu().double() - truth).abs().max() / truth.max()

    few = G[:16]  # what goes one by one is timed on 16 and scaled
    part.time(
        "eigenvalues c128",
        case,
        f"torch.linalg.eigvalsh, 16 of {F}",
        lambda: torch.linalg.eigvalsh(few),
        rounds=3,
        error=off,
        scale=F / len(few),
    )
    part.time(
        "singular values c128",
        case,
        f"torch.linalg.svdvals, 16 of {F}",
        lambda: torch.linalg.svdvals(B[:16]),
        rounds=3,
        scale=F / len(few),
    )
    part.time("eigenvalues c128", case, "host, 16 threads, with both copies", lambda: on_host(G), error=off)
    try:
        from cusolver import eig_batched

        part.time("eigenvalues c128", case, "XsyevBatched", lambda: eig_batched(G), error=off)
        part.time("eigenvectors c128", case, "XsyevBatched", lambda: eig_batched(G, True), error=off)
        S = G.to(torch.complex64)
        part.time("eigenvalues c64", case, "XsyevBatched", lambda: eig_batched(S), error=off)
        part.time("eigenvectors c64", case, "XsyevBatched", lambda: eig_batched(S, True), error=off)
        V = eig_batched(G, True)
        residual = (G @ V[1] - V[1] * V[0][:, None]).abs().max()
        part.write(question="XsyevBatched residual", case=case, value=float(residual))
    except Exception as problem:
        part.write(question="XsyevBatched", case=case, failed=str(problem)[:200])
    try:
        import cupy

        C = cupy.from_dlpack(G)
        part.time("eigenvalues c128", case, "cupy.linalg.eigvalsh", lambda: cupy.linalg.eigvalsh(C))
    except Exception as problem:
        part.write(question="cupy", case=case, failed=str(problem)[:120])
    eye = torch.eye(n, dtype=G.dtype, device=DEVICE)
    level = 1.001 * float(truth.max()) * 2
    part.time("Cholesky", case, "cholesky_ex c128", lambda: torch.linalg.cholesky_ex(level * eye - G).info)
    part.time(
        "Cholesky",
        case,
        "cholesky_ex c64",
        lambda: torch.linalg.cholesky_ex((level * eye - G).to(torch.complex64)).info,
    )
    x, y = torch.complex(*(torch.randn(F, n, n, device=DEVICE) for _ in range(2))), G
    for dtype in (torch.complex64, torch.complex128):
        a = x.to(dtype)
        part.time("GEMM", case, f"bmm {dtype}", lambda: a @ a, flop=8 * F * n**3)
    v = torch.randn(F, n, dtype=torch.complex64, device=DEVICE)
    part.time("one Lanczos product c64", case, "(blocks * v).sum(2), as now", lambda: (x * v[:, None]).sum(2))
    part.time("one Lanczos product c64", case, "torch.bmm", lambda: torch.bmm(x, v[..., None]))
    if part.out_of_time():
        break

# ---- one matrix: how right, and how long ----
for n in (8,) if QUICK else (8, 64, 128, 512):
    B = made(1, n, torch.complex128)[1][0].to(DEVICE)
    truth = torch.linalg.svdvals(B.cpu())

    def apart(found):
        return (found.double().cpu() - truth).abs().max() / truth.max()

    case, float32 = f"1 x {n}", B.to(torch.complex64)
    part.time("one svdvals", case, "torch c64", lambda: torch.linalg.svdvals(float32), rounds=3, error=apart)
    part.time(
        "one svdvals", case, "torch c64 gesvd", lambda: torch.linalg.svdvals(float32, driver="gesvd"), 3, error=apart
    )
    part.time("one svdvals", case, "torch c128", lambda: torch.linalg.svdvals(B), rounds=3, error=apart)
    part.time("one eigvalsh", case, "torch c128", lambda: torch.linalg.eigvalsh(B @ B.mH), rounds=3)
    real = B.real.float().contiguous()
    exact = torch.linalg.matrix_norm(real.double().cpu(), 2)
    part.time(
        "one matrix_norm",
        case,
        "torch f32",
        lambda: torch.linalg.matrix_norm(real, 2),
        rounds=3,
        error=lambda found: abs(found.double().cpu() / exact - 1),
    )
for F, n in [(2, 8)] if QUICK else [(2, 64), (4, 64), (2, 128), (4, 128), (2, 512), (4, 512), (130, 32)]:
    G = made(F, n, torch.complex128)[0].to(DEVICE)
    part.time("few eigenvalues c128", f"{F} x {n}", "torch", lambda: torch.linalg.eigvalsh(G), rounds=3)
    if not QUICK:
        part.time("few eigenvalues c128", f"{F} x {n}", "XsyevBatched", lambda: eig_batched(G), rounds=3)
        part.time("few eigenvectors c128", f"{F} x {n}", "XsyevBatched", lambda: eig_batched(G, True), rounds=3)

# ---- Cholesky in one call, or by halves ----
from convkit.engine import hermitian  # noqa: E402

for F, n in [(2, 8)] if QUICK else [(514, 64), (514, 128), (514, 256), (514, 512)]:
    G = made(4, n, torch.complex64)[0].to(DEVICE).repeat(-(-F // 4), 1, 1)[:F]
    G.diagonal(dim1=1, dim2=2).add_(1.0)
    for side in (n + 1, *(s for s in (64, 128, 256) if s < n)):
        hermitian.FACTOR_SIDE_ON_GPU = side
        part.time(
            "Cholesky c64", f"{F} x {n}", f"halves above {side}", lambda: hermitian.positive_definite(G), rounds=3
        )

# ---- the norm: all blocks decomposed, or searched ----
from convkit.engine import largest  # noqa: E402
from convkit.norms import operator_norm  # noqa: E402
from convkit.operators.operator import ConvOperator  # noqa: E402

for c, n in [(8, 8)] if QUICK else [(32, 32), (64, 16), (64, 32), (96, 32), (128, 16), (128, 32)]:
    g = torch.Generator().manual_seed(c + n)
    A = ConvOperator((torch.randn(c, c, 3, 3, generator=g) / (3 * c**0.5)).to(DEVICE), (n, n))
    for side in (16, 24, 512):
        largest.DENSE_SIDE_ON_GPU = side
        part.time("operator_norm 2", f"{c}@{n}", f"all blocks up to {side}", lambda: operator_norm(A, 2), rounds=3)
