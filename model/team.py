"""Processes that share one fit: each has every size-th image, and what is said of all is said of sums over them.

A sum over processes is rounded otherwise than a sum over images, so a fit by two is the fit by one to noise; but for
the same number of processes and the same seed it is the same to the bit, for sums are taken in the order of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class Team:
    """This process's place among them; alone unless it is told otherwise. Each calls the same methods in turn."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @staticmethod
    def of_processes() -> Team:
        """All of torch.distributed's default group, where one is initialised; alone where none is."""
        if not dist.is_available() or not dist.is_initialized():
            return Team()
        return Team(dist.get_rank(), dist.get_world_size())

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def leads(self) -> bool:
        """Whether this one does what one of them has to do for all."""
        return self.rank == 0

    @property
    def salt(self) -> tuple[int, ...]:
        """What a seed has besides, so that each draws otherwise; nothing alone."""
        return () if self.alone else (self.rank, self.size)

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's."""
        return list(items[self.rank :: self.size])

    def place(self, index: int) -> int:
        """Of an item of this process's share among all."""
        return self.rank + index * self.size

    def total(self, x: torch.Tensor) -> torch.Tensor:
        """The sum over processes."""
        if self.alone:
            return x
        x = x.clone()
        dist.all_reduce(x)
        return x

    def total_of(self, *numbers: float) -> list[float]:
        """The sum over processes of each."""
        return list(numbers) if self.alone else self.total(torch.tensor(numbers, dtype=torch.float64)).tolist()

    def joined(self, own: Sequence[T]) -> list[T]:
        """All processes' items: the first one's, then the second one's, and so on."""
        if self.alone:
            return list(own)
        all_of: list[list[T]] = [[] for _ in range(self.size)]
        dist.all_gather_object(all_of, list(own))
        return [item for one in all_of for item in one]

    def first(self, make: Callable[[], T]) -> T:
        """What the first process makes; an error there is an error everywhere."""
        if self.alone:
            return make()
        made: list[T | Exception | None] = [None]
        if self.leads:
            try:
                made = [make()]
            except Exception as error:
                made = [error]
        dist.broadcast_object_list(made, src=0)
        if isinstance(made[0], Exception):
            raise made[0]
        return made[0]  # type: ignore[return-value]

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Each becomes its mean over processes, in one exchange."""
        if self.alone or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        start = 0
        for tensor in tensors:
            tensor.detach().copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()


ALONE = Team()
