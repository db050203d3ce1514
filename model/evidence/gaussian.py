"""A gaussian at each place of the part: what good images' features are like there.

PaDiM (Defard et al., ICPR 2021 workshops, section III) has one at each position over joined levels. Here its covariance
is half the place's own and half the pooled one of all places, which few images suffice for, and the own half is kept as
its strongest directions alone. With W that whitens the pooled covariance, w = W (x - mean), and the place's covariance
C in these coordinates, the distance is

    w' (s C + (1 - s) I)^-1 w      s: the own share,

which for C's eigenvectors v_i of eigenvalues l_i is |w|^2 / b minus sums of (v_i' w)^2 (1 / b - 1 / (s l_i + 1 - s)),
b = 1 - s + s times the mean of the eigenvalues that are left out. So a product keeps, for each place, a mean and a few
directions instead of a matrix: an eighth of the bytes and of the work.

What good parts may look like besides (model/images/tolerance.py) belongs to the pooled covariance. Copies among the
good images were tried in its place: they blur each place's mean and own covariance, and rejected more (docs/method.md).

For tiles places mean nothing: one mean and the pooled covariance for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import nn

from model.team import ALONE, Team

OWN_SHARE = 0.5
"""Of a place's covariance. Held-out good images find shares from .25 to .75 about as likely."""
MOST_DIMENSIONS = 288
"""Wider features are turned into so many by a random projection, as PaDiM drops channels at random."""
_RIDGE = 0.01
_TINY = 1e-9

Batches = Callable[[], Iterable[torch.Tensor]]
"""Features of good images, [B, C, H, W] batch by batch; asked for several times."""


class PlaceGaussian(nn.Module):
    """Features [B, C, H, W] -> squared distances [B, H, W], about 1 for good images. All that it knows are buffers.

    width: C. side: H and W; None: places mean nothing. directions: kept of each place's own covariance; 0: the pooled
    one alone, about each place's mean.
    """

    def __init__(self, width: int, side: int | None, directions: int) -> None:
        super().__init__()
        self.side = side
        places = side * side if side else 1
        kept = min(width, MOST_DIMENSIONS)
        self.register_buffer("whitening", torch.zeros(kept, width, 1, 1))
        self.register_buffer("mean", torch.zeros(places, kept))  # whitened
        self.register_buffer("scale", torch.ones(places))
        self.register_buffer("directions", torch.zeros(places, kept, min(directions, kept) if side else 0))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        white_BKHW = F.conv2d(x_BCHW, self.get_buffer("whitening"))
        # Channels stay last from the convolution on; the matrix product takes place by place.
        w_PBK = white_BKHW.permute(0, 2, 3, 1).flatten(1, 2).transpose(0, 1) - self.get_buffer("mean")[:, None]
        distance_PB = w_PBK.square().sum(dim=2)
        if self.get_buffer("directions").shape[2]:
            distance_PB = distance_PB - (w_PBK @ self.get_buffer("directions")).square().sum(dim=2)
        distance_PB = distance_PB * self.get_buffer("scale")[:, None]
        return distance_PB.T.reshape(-1, *x_BCHW.shape[-2:])

    @torch.no_grad()
    def fit(self, batches: Batches, changes: Batches | None = None, team: Team = ALONE) -> None:
        """Learn from features of good images; sums are kept in float64. One image is enough to be defined.

        changes: by how much features differ where an image is changed as it may be. Their second moment is added to
        the pooled covariance: what such a change does is no surprise, at no place.
        """
        width = self.get_buffer("whitening").shape[1]
        device = self.get_buffer("mean").device  # small matrices are decomposed on the CPU, one at a time
        mean_PC, count = _mean(batches, team)
        mean_PC = mean_PC if self.side else mean_PC.mean(dim=0, keepdim=True)
        project_KC = _projection(width, self.get_buffer("whitening").shape[0]).to(device)
        pooled_KK = _pooled(batches, mean_PC, project_KC, team)
        if changes:
            pooled_KK = pooled_KK + _pooled(changes, torch.zeros_like(mean_PC), project_KC, team, fitted=0)
        pooled_KK = pooled_KK.cpu()
        ridge = max(_RIDGE * float(pooled_KK.diagonal().mean()), _TINY)
        values, vectors = torch.linalg.eigh(pooled_KK + ridge * torch.eye(len(pooled_KK), dtype=torch.float64))
        white_KC = (vectors / values.sqrt()).T.to(device) @ project_KC
        self.get_buffer("whitening").copy_(white_KC.float()[..., None, None])
        self.get_buffer("mean").copy_((mean_PC @ white_KC.T).float())
        dimensions = len(white_KC)
        if not self.get_buffer("directions").shape[2]:
            self.get_buffer("scale").fill_(1 / dimensions)
            return
        own_PKK = self._own(batches, count, team).cpu()
        left_out = torch.empty(len(own_PKK))
        for place, own_KK in enumerate(own_PKK):
            values, vectors = torch.linalg.eigh(own_KK)
            kept = self.get_buffer("directions").shape[2]
            values, vectors = values.flip(0)[:kept].clamp_min(0), vectors.flip(1)[:, :kept]
            rest = float(own_KK.trace() - values.sum()) / max(1, dimensions - kept)
            base = 1 - OWN_SHARE + OWN_SHARE * max(0.0, rest)
            less = (1 - base / (OWN_SHARE * values + 1 - OWN_SHARE)).clamp_min(0)
            # As they are stored; so that what is judged with them now is what is judged with them then.
            self.get_buffer("directions")[place].copy_((vectors * less.sqrt()).half())
            left_out[place] = base
        self.get_buffer("scale").copy_(1 / (left_out * dimensions))

    def _own(self, batches: Batches, count: int, team: Team) -> torch.Tensor:
        """Each place's covariance in whitened coordinates, [P, K, K]."""
        mean_PK = self.get_buffer("mean")
        own_PKK = torch.zeros(*mean_PK.shape, mean_PK.shape[1], device=mean_PK.device)
        for x_BCHW in batches():
            w_PBK = F.conv2d(x_BCHW.float(), self.get_buffer("whitening")).flatten(2).permute(2, 0, 1)
            w_PBK = w_PBK - mean_PK[:, None]
            own_PKK.baddbmm_(w_PBK.transpose(1, 2), w_PBK)
        return team.total(own_PKK) / max(1, count - 1)


def _mean(batches: Batches, team: Team) -> tuple[torch.Tensor, int]:
    """Mean at each place, float64 [P, C], and how many images there were."""
    total: torch.Tensor | None = None
    count = 0
    for x_BCHW in batches():
        sums_PC = x_BCHW.double().sum(dim=0).flatten(1).T
        total = sums_PC if total is None else total + sums_PC
        count += len(x_BCHW)
    assert total is not None
    count = int(team.total_of(count)[0])
    return team.total(total) / count, count


def _pooled(
    batches: Batches, mean_PC: torch.Tensor, project_KC: torch.Tensor, team: Team, fitted: int | None = None
) -> torch.Tensor:
    """Covariance about the means, pooled over places, of projected features, float64 [K, K].

    fitted: means that were taken from these features; none: all of mean_PC.
    """
    total = torch.zeros(len(project_KC), len(project_KC), dtype=torch.float64, device=project_KC.device)
    count = 0
    for x_BCHW in batches():
        off_BPC = x_BCHW.double().flatten(2).transpose(1, 2) - mean_PC
        off_NK = (off_BPC @ project_KC.T).flatten(0, 1)
        total += off_NK.T @ off_NK
        count += len(off_NK)
    count = int(team.total_of(count)[0])
    return team.total(total) / max(1, count - (len(mean_PC) if fitted is None else fitted))


def _projection(width: int, kept: int) -> torch.Tensor:
    """Orthonormal rows, float64 [kept, width]; the identity where nothing is dropped. The same for every fit."""
    if kept == width:
        return torch.eye(width, dtype=torch.float64)
    random = torch.randn(width, kept, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    orthonormal: torch.Tensor = torch.linalg.qr(random).Q
    return orthonormal.T
