"""What inference costs beyond the network: patches, blending, checks, and a whole command line.

Prints, with CPU seconds of one thread (the least of some repetitions, taken in turn):

* a small U-Net (recipes/affinity_unet.py): the whole operator over the bare forward passes of the same patches, beside
  MONAI's `sliding_window_inference` with the same net, patches and Gaussian blending; at most 1.10 is wanted;
* a pass-through net with three channels: volume voxels per second that are cut out, blended and checked, net apart; at
  least 100 Mvoxel/s is wanted (MONAI 60, chunkflow 14-29);
* the same U-Net over blocks of 1, 2, 4 and 8 strides: forward passes and CPU where every block runs all patches that it
  needs, and where each patch is run once, scratch data included;
* the same U-Net over a block for each core, in threads that take turns at it, beside threads that do
  not (which a network that keeps tensors on itself does not survive): wall and CPU seconds, and how many cores these
  threads ask for on average, time in which another program has the core included (at least 0.9 of the cores is wanted);
* a whole job with two threads, as a worker of a GPU has: voxels per second beside the bare forward passes, and the part
  of the time in which the network computes nothing (`--device cuda --dtype bfloat16` for a GPU: at least 0.9 of the
  bare rate is wanted, the passes apart that blocks repeat at their borders);
* the command that loads 104x416x416 uint8 voxels, infers with identity and saves three float32 channels, start-up
  apart: at most 2 s are wanted (chunkflow 14.7).

Patches overlap by a quarter on each axis. MONAI is given float32 tensors, daskflow uint8 arrays to scale.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import daskflow
from daskflow.clusters import Threads
from daskflow.clusters.threads import cores
from daskflow.geometry import BlockGrid, BoundingBox, Zyx, as_zyx
from daskflow.inference.blend import infer
from daskflow.inference.network import ModelFile, Network, Precision
from daskflow.inference.once import OncePerPatch
from daskflow.inference.patches import PatchGrid
from daskflow.volume.mapping import MappedBoxes
from daskflow.volume.stage import Scopes, run_here

SMALL = (14, 28, 28), (8, 16, 16)  # shape and patch of a trial: 8 patches
UNET = Path(__file__).parents[1] / "recipes" / "affinity_unet.py"
PASS_THROUGH = """
import torch

class PassThrough(torch.nn.Module):
    def forward(self, image):
        return image.repeat(1, 3, 1, 1, 1)

InstantiatedModel = PassThrough()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="tiny data, to see that it runs")
    parser.add_argument("--device", help="of the whole job alone, e.g. cuda; the rest is measured on the CPU")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32", help="on that device")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions of each measurement")
    options = parser.parse_args()
    torch.set_num_threads(1)
    repeat = 1 if options.small else options.repeat
    if options.device is not None:
        shape, patch = SMALL if options.small else ((84, 1088, 1088), (20, 256, 256))
        whole_job(UNET, shape, patch, options.device, options.dtype)
        return
    with tempfile.TemporaryDirectory() as folder:
        through = Path(folder) / "pass_through.py"
        through.write_text(PASS_THROUGH)
        unet = SMALL if options.small else ((56, 168, 168), (32, 96, 96))
        passing = SMALL if options.small else ((104, 416, 416), (32, 128, 128))
        compare("U-Net", UNET, *unet, repeat)
        take_turns(UNET, *unet, repeat)
        compare("pass-through", through, *passing, repeat if options.small else 4 * repeat)
        patches_once(UNET, *(((8, 16, 16), 2) if options.small else ((8, 32, 32), 8)))
        whole_job(UNET, *unet, "cpu", "float32")
        command_line(Path(folder), *passing, repeat)


def compare(name: str, model: Path, shape: Zyx, patch: Zyx, repeat: int) -> None:
    """Print what daskflow and MONAI take beyond the forward passes of one network."""
    array = smooth_noise(shape)
    box = BoundingBox((0, 0, 0), shape)
    grid = PatchGrid(box, patch, patch, tuple(n // 4 for n in patch))
    network = Network("pytorch", patch, patch, model=ModelFile.at(model), device="cpu")
    engine = network.engine()
    patches = [array[p.input.slices(box)][None, None] / np.float32(255) for p in grid.patches(box)]
    tensor = torch.from_numpy(array / np.float32(255))[None, None]
    net = engine._model.net

    def bare() -> None:
        with torch.inference_mode():
            for voxels in patches:
                net(torch.from_numpy(voxels).contiguous(memory_format=torch.channels_last_3d))

    best = least(
        repeat,
        bare=bare,
        daskflow=lambda: infer(array, box=box, read_box=box, grid=grid, network=network),
        MONAI=lambda: monai_inference(tensor, patch, net),
    )
    print(f"{name}: {grid.box} in {len(grid)} patches of {patch}, overlap {grid.overlap} zyx, 3 channels, one thread")
    print(f"  bare forward passes  {best['bare']:7.3f} s")
    for who in ("daskflow", "MONAI"):
        beyond = best[who] - best["bare"]
        rate = f"{array.size / beyond / 1e6:.0f} Mvoxel/s" if beyond > 0 else "too little to measure"
        print(f"  {who:20} {best[who]:7.3f} s, {best[who] / best['bare']:.3f} of bare; beyond it {rate}")


def patches_once(model: Path, patch: Zyx, strides: int) -> None:
    """Print forward passes and CPU of blocks of 1, 2, 4 and 8 strides that each run all they need, and once in all."""
    stride = tuple(n - n // 4 for n in patch)
    shape = as_zyx([strides * s + n // 4 for s, n in zip(stride, patch, strict=True)])
    array, box = smooth_noise(shape), BoundingBox((0, 0, 0), shape)
    grid = PatchGrid(box, patch, patch, as_zyx([n // 4 for n in patch]))
    network = Network("pytorch", patch, patch, model=ModelFile.at(model), device="cpu")
    volume = daskflow.open(array)
    spec = volume.spec.replace(channels=3, dtype=np.dtype(np.float32))
    node = volume.map_boxes(infer, reads=grid.reads, spec=spec, dear=True, network=network).node
    assert isinstance(node, MappedBoxes)
    once = OncePerPatch(grid, network, "error")
    network.engine()
    print(f"{len(grid)} patches of {patch}, overlap {grid.overlap} zyx:")
    for count in (1, 2, 4, 8):
        blocks = BlockGrid(box, as_zyx([count * s for s in stride]))
        start, passes = time.process_time(), 0
        for block in blocks:
            reads = grid.reads(block)
            infer(array[reads.slices(box)], box=block, read_box=reads, grid=grid, network=network)
            passes += len(list(grid.patches(block)))
        repeated = time.process_time() - start
        with tempfile.TemporaryDirectory() as folder:
            scopes = Scopes(folder)
            start = time.process_time()
            waiting = once.kept(node, box, spec.nbytes_of(blocks[0]), 1.0)
            run_here(waiting.stages, scopes)
            store = waiting.bound(scopes).store
            for block in blocks:
                store.read(block)
            alone = time.process_time() - start
        told = f"{passes} passes, {repeated:.2f} s; each patch once: {len(grid)} passes, {alone:.2f} s"
        print(f"  blocks of {count} strides  {told}, {alone / repeated:.2f}")


def take_turns(model: Path, shape: Zyx, patch: Zyx, repeat: int) -> None:
    """Print how well threads that take turns at a network, whose passes use all cores, keep these busy."""
    threads = cores()
    array, box = smooth_noise(shape), BoundingBox((0, 0, 0), shape)
    grid = PatchGrid(box, patch, patch, tuple(n // 4 for n in patch))
    network = Network("pytorch", patch, patch, model=ModelFile.at(model), device="cpu")
    engine = network.engine()
    lock = engine._turn
    print(f"{threads} threads, a block of {shape} each, patches of {patch}:")
    ways = {"in turns": (lock, threads), "at once, torch on all cores": (nullcontext(), threads)}
    ways["at once, torch on one core"] = (nullcontext(), 1)
    for name, (turn, width) in ways.items():
        engine._turn = turn
        best = (float("inf"), 0.0, 0.0)
        with Threads(threads) as pool:
            for round_ in range(repeat + 1):
                start, (ran, waited) = time.perf_counter(), scheduled()
                for done in [pool.submit(blended, array, box, grid, network, width) for _ in range(threads)]:
                    done.result()
                end, (ran_then, waited_then) = time.perf_counter(), scheduled()
                if round_:  # torch starts its threads in the first
                    best = min(best, (end - start, ran_then - ran, waited_then - waited))
        wall, cpu, waiting = best
        print(f"  {name:28} wall {wall:6.2f} s, CPU {cpu:6.2f} s, asks for {(cpu + waiting) / wall:.2f} cores")
    engine._turn = lock
    torch.set_num_threads(1)


def whole_job(model: Path, shape: Zyx, patch: Zyx, device: str, dtype: Precision) -> None:
    """Print how fast a job that reads and writes files is beside the bare passes, and how long its network is idle."""
    array, overlap = smooth_noise(shape), tuple(n // 4 for n in patch)
    network = Network("pytorch", patch, patch, model=ModelFile.at(model), device=device, dtype=dtype, batch_size=4)
    engine = network.engine()
    on_gpu = engine.device.type == "cuda"
    net, passes = engine._model.net, 0
    spans: list[Any] = []
    batch = torch.rand((4, 1, *patch), device=engine.device).contiguous(memory_format=engine._layout)

    def now() -> Any:
        return torch.cuda.current_stream().record_event(torch.cuda.Event(enable_timing=True)) if on_gpu else None

    def timed(inputs: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += len(inputs)
        start, clock = now(), time.perf_counter()
        outputs = net(inputs)
        spans.append((start, now()) if on_gpu else time.perf_counter() - clock)
        return outputs

    count = len(PatchGrid(BoundingBox((0, 0, 0), shape), patch, patch, overlap))
    bare = min(seconds(lambda: forward(net, batch, -(-count // 4), dtype), on_gpu) for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        daskflow.save(daskflow.open(array, voxel_size=(40, 8, 8)), f"{folder}/image.zarr").run(progress=False)
        engine._model = replace(engine._model, net=timed)
        answer = daskflow.inference(
            daskflow.open(f"{folder}/image.zarr"),
            input_patch_size=patch,
            output_patch_overlap=overlap,
            convnet_model=str(model),
            framework="pytorch",
            device=device,
            dtype=dtype,
            batch_size=4,
        )
        block = tuple(n // 2 for n in shape)
        job = daskflow.save(answer, f"{folder}/affinities.zarr", chunk=block, block=block)
        with Threads(2) as pool:
            wall = seconds(lambda: job.run(pool, progress=False), on_gpu)
    busy = sum(one[0].elapsed_time(one[1]) / 1e3 if on_gpu else one for one in spans)
    engine._model = replace(engine._model, net=net)
    print(f"whole job on {engine.device} in {dtype}: {shape} uint8, 8 blocks, {count} patches of {patch}, batches of 4")
    print(f"  bare forward passes  {array.size / bare / 1e6:8.2f} Mvoxel/s")
    print(f"  the job              {array.size / wall / 1e6:8.2f} Mvoxel/s, {passes / count:.2f} passes a patch:")
    print(f"  per pass {bare / count / (wall / passes):.2f} of bare, the network idle {max(0.0, 1 - busy / wall):.0%}")


def forward(net: Callable[..., Any], batch: torch.Tensor, count: int, dtype: Precision) -> None:
    """Run a network on a batch again and again."""
    lower = dtype != "float32"
    with torch.inference_mode(), torch.autocast(batch.device.type, dtype=getattr(torch, dtype), enabled=lower):
        for _ in range(count):
            net(batch)


def seconds(work: Callable[[], Any], on_gpu: bool) -> float:
    """Return the wall time of some work, what it leaves to a GPU included."""
    start = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def scheduled() -> tuple[float, float]:
    """Return the seconds that the threads of this process have run, and have waited for a core (Linux)."""
    total = np.zeros(2)
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):  # a thread that has ended since
            total += [int(n) for n in path.read_text().split()[:2]]
    ran, waited = total / 1e9
    return ran, waited


def blended(array: Any, box: BoundingBox, grid: PatchGrid, network: Network, width: int) -> None:
    """Answer for one block, with torch on some cores."""
    torch.set_num_threads(width)
    infer(array, box=box, read_box=box, grid=grid, network=network)


def monai_inference(tensor: torch.Tensor, patch: Zyx, net: Callable[..., Any]) -> torch.Tensor:
    """Return what MONAI answers for the whole volume."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.inferers import sliding_window_inference
    with torch.inference_mode():
        result: torch.Tensor = sliding_window_inference(tensor, patch, 1, net, overlap=0.25, mode="gaussian")
    return result


def command_line(folder: Path, shape: Zyx, patch: Zyx, repeat: int) -> None:
    """Print the CPU time of a whole command, and without that of the same command on almost nothing."""
    cost = {}
    for name, voxels in (("whole", smooth_noise(shape)), ("start", smooth_noise((2, 4, 4)))):
        np.save(folder / f"{name}.npy", voxels)
        cost[name] = min(command_seconds(folder / f"{name}.npy", folder / f"{name}{i}", patch) for i in range(repeat))
    work = cost["whole"] - cost["start"]
    print(f"command line: load-npy {shape} uint8, inference -f identity -s {patch}, save-precomputed 3 x float32")
    print(f"  CPU {cost['whole']:.2f} s, of it start-up {cost['start']:.2f} s, work {work:.2f} s (chunkflow 14.7 s)")


def command_seconds(image: Path, output: Path, patch: Zyx) -> float:
    """Return the CPU seconds of one command in a process of its own."""
    words = ["--quiet", "--cluster", "threads", "load-npy", "-f", str(image)]
    words += ["inference", "-f", "identity", "-s", *map(str, patch), "-v", *(str(n // 4) for n in patch)]
    words += ["save-precomputed", "-v", str(output)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "import sys; from daskflow.cli import main; sys.exit(main())"
    subprocess.run([sys.executable, "-c", code, *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def smooth_noise(shape: Zyx) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a seeded image without zeros, uint8 zyx."""
    coarse = np.random.default_rng(0).integers(1, 256, [-(-n // 4) for n in shape], dtype=np.uint8)
    for axis, size in enumerate(shape):
        coarse = coarse.repeat(4, axis).take(range(size), axis)
    return coarse


def least(repeat: int, **works: Callable[[], Any]) -> dict[str, float]:
    """Return the least CPU seconds of each work over some rounds, after one to warm up."""
    best = dict.fromkeys(works, float("inf"))
    for turn in range(repeat + 1):
        for name, work in works.items():
            start = time.process_time()
            work()
            if turn:
                best[name] = min(best[name], time.process_time() - start)
    return best


if __name__ == "__main__":
    main()
