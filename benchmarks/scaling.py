"""What a petabyte needs: schedulers, GPU workers on spot machines and their blocks, simulated from measured costs.

Every worker asks its scheduler for the next block when it has done one; a scheduler hands out one at a time, and its
CPU time per task is what `benchmarks/soak.py` measures. A worker may be taken away at any moment: its block runs
again elsewhere, and another worker comes after a while. A few blocks per worker are simulated, and the rate at which
they are done stands for the whole.
"""

from __future__ import annotations

import argparse
import heapq
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Site:
    """Workers under one scheduler, and what their blocks cost.

    Attributes:
        workers: GPUs, one worker process each.
        side: voxels along each edge of a block.
        voxels_per_second: that the network answers for on one GPU.
        bytes_per_second: between one worker and its bucket.
        halo: voxels read beyond each face of a block.
        channels: bytes written per voxel.
        task_seconds: CPU time of scheduler and client per task.
        life_hours: of a spot machine, on average.
        away_seconds: until another takes its place.
    """

    workers: int
    side: int = 512
    voxels_per_second: float = 2.5e6
    bytes_per_second: float = 100e6
    halo: int = 32
    channels: int = 3
    task_seconds: float = 3.2e-3
    life_hours: float = 6.0
    away_seconds: float = 240.0

    @property
    def block_seconds(self) -> float:
        """Seconds of a block: the network's, or those of its bytes, which move while the network runs."""
        network = self.side**3 / self.voxels_per_second
        moved = (self.side + 2 * self.halo) ** 3 + self.channels * self.side**3
        return max(network, moved / self.bytes_per_second)


@dataclass(frozen=True)
class Outcome:
    """What came out of a simulated stretch.

    Attributes:
        rate: blocks per second.
        busy: part of the time in which the scheduler worked.
        idle: part of the time in which workers that were there had no block.
        repeated: blocks that ran again, per block.
    """

    rate: float
    busy: float
    idle: float
    repeated: float


def simulate(site: Site, blocks_per_worker: int, seed: int = 0) -> Outcome:
    """Run blocks on the workers of a site until each has had so many, and return how that went."""
    chance = random.Random(seed)
    blocks = site.workers * blocks_per_worker
    deaths = [chance.expovariate(1 / (3600 * site.life_hours)) for _ in range(site.workers)]
    free = [(chance.random() * site.block_seconds, worker) for worker in range(site.workers)]
    heapq.heapify(free)
    ready = worked = waited = end = 0.0
    done = given = repeated = 0
    while done < blocks:
        now, worker = heapq.heappop(free)
        given += 1
        start = max(now, ready)
        ready = start + site.task_seconds
        seconds = site.block_seconds * chance.lognormvariate(0, 0.2)
        until = ready + seconds
        if until < deaths[worker]:
            done, end = done + 1, max(end, until) if done < blocks else end
            worked, waited = worked + seconds, waited + ready - now
        else:
            repeated += 1
            until = deaths[worker] + site.away_seconds
            deaths[worker] = until + chance.expovariate(1 / (3600 * site.life_hours))
        heapq.heappush(free, (until, worker))
    span = max(now, ready)
    return Outcome(done / span, given * site.task_seconds / span, waited / (waited + worked), repeated / done)


def show(name: str, sites: list[Site], total: float, blocks_per_worker: int) -> None:
    """Print a line: how long so many bytes of uint8 take on some sites that share one job."""
    outcomes = [simulate(site, blocks_per_worker, seed) for seed, site in enumerate(sites)]
    blocks = total / sites[0].side ** 3
    days = blocks / sum(one.rate for one in outcomes) / 86400
    print(
        f"{name:34} {blocks:12,.0f} {sites[0].block_seconds:8.1f} s {days:7.1f} d"
        f" {100 * max(one.busy for one in outcomes):8.1f} % {100 * max(one.idle for one in outcomes):6.1f} %"
        f" {100 * max(one.repeated for one in outcomes):7.2f} %"
    )


def main() -> None:
    """Print how a petabyte goes over one scheduler and over three, in blocks of several sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a hundredth of the workers")
    parser.add_argument("--bytes", type=float, default=1e15, help="of uint8 voxels")
    parser.add_argument("--workers", type=int, default=3600)
    parser.add_argument("--rate", type=float, default=Site(1).voxels_per_second, help="voxels per second and GPU")
    parser.add_argument("--blocks", type=int, default=60, help="per worker that are simulated")
    given = parser.parse_args()
    workers = max(3, given.workers // 100) if given.small else given.workers
    print(f"{given.bytes:.0e} voxels, {workers:,} GPUs of {given.rate:,.0f} voxels/s")
    print(f"{'':34} {'blocks':>12} {'block':>10} {'time':>9} {'scheduler':>10} {'idle':>8} {'repeated':>9}")
    for side in (512, 256, 128):
        site = Site(workers, side=side, voxels_per_second=given.rate)
        show(f"one scheduler, blocks of {side}^3", [site], given.bytes, given.blocks)
    for side in (256, 128):
        site = Site(workers // 3, side=side, voxels_per_second=given.rate)
        show(f"three schedulers, blocks of {side}^3", [site] * 3, given.bytes, given.blocks)
    short = Site(workers, voxels_per_second=given.rate, life_hours=0.5)
    show("machines that live half an hour", [short], given.bytes, given.blocks)
    slow = Site(workers, voxels_per_second=given.rate, bytes_per_second=5e6)
    show("buckets of 5 MB/s for each worker", [slow], given.bytes, given.blocks)


if __name__ == "__main__":
    main()
