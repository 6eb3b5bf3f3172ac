"""How much samples differ from each other, and one set of samples from another, by features.

Shapes: N samples of one prompt, or of two paired sets, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def vendi_score(features: Tensor) -> float:
    """The effective number of different samples among N, 1 to N (Friedman and Dieng 2023).

    exp of the entropy of the eigenvalues of K / N, K the cosines of `features` `[N, D]`. A sample
    without features (all zero) is like no other.
    """
    near = F.normalize(features.double(), dim=1)
    kernel = near @ near.T
    kernel.fill_diagonal_(1.0)
    values = torch.linalg.eigvalsh(kernel / len(features)).clamp(min=0)
    values = values[values > 0]
    return float((-(values * values.log()).sum()).exp())


def mean_distance(features: Tensor) -> float:
    """The mean Euclidean distance of two of N samples, `[N, D]`, N > 1."""
    distances = torch.pdist(features.double())
    return float(distances.mean())


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """KID: unbiased squared MMD of two sets `[N, D]`, N > 1, with the kernel (x.y / D + 1)^3.

    Row i of both sets may depend on each other, as samples from the same noise do: all terms of a
    row with itself are left out (Gretton et al. 2012, eq. 4; Binkowski et al. 2018 for the kernel).
    So it is exactly 0 for equal sets, and about 0 where the distributions are equal.
    """
    x, y = first.double(), second.double()
    count, size = x.shape

    def off_diagonal(a: Tensor, b: Tensor) -> Tensor:
        kernel = (a @ b.T / size + 1) ** 3
        return (kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1))

    return float(off_diagonal(x, x) + off_diagonal(y, y) - 2 * off_diagonal(x, y))
