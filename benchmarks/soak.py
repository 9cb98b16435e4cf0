"""What a million tasks leave behind: memory of client and scheduler as one scheduler hands out task after task.

The scheduler runs in this process, as it does in `daskflow.connect("local")`, so that one figure has both.
"""

from __future__ import annotations

import argparse
import time

from stream import PROCESS, cpu, megabytes, stream

from daskflow.clusters import connect

_MOST = 100  # MB that may be left at the end


def main() -> None:
    """Print memory and cost after each tenth of the tasks, then what is left at the end beside the aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10**6, help="of one block that does nothing each")
    parser.add_argument("--small", action="store_true", help="a few seconds instead of an hour")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    every = 30 if given.small else given.tasks // 10
    with connect("local", workers=given.workers, threads=1) as client:
        first, before, used, started = 0.0, 0.0, 0.0, 0.0
        for tenth in range(11):  # the first warms up, and is not counted
            tasks = every if tenth else min(10**4, every)
            stream(client, tasks, batched=False)
            now = megabytes()
            if not tenth:
                first, before, used, started = now, now, cpu(), time.perf_counter()
                continue
            done = tenth * tasks
            wall, busy = time.perf_counter() - started, cpu() - used
            print(
                f"{done:>9,} tasks in {wall:.0f} s: {1000 * wall / done:.2f} ms wall, {1000 * busy / done:.2f} ms"
                f" CPU each; memory {now - first:+.0f} MB ({(now - before) * 1e5 / tasks:+.1f} per 10^5 tasks),"
                f" {PROCESS.num_threads()} threads",
                flush=True,
            )
            before = now
        print(f"left at the end: {now - first:+.0f} MB (aim: at most +{_MOST})")


if __name__ == "__main__":
    main()
