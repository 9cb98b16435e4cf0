"""A driver to be killed: runs a job of files below a folder, on a cluster of one's choice."""

import argparse
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))


def wait_for_others(folder, drivers):
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < drivers:
        time.sleep(0.01)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cluster", default="threads")
    parser.add_argument("--blocks", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=0.02)
    parser.add_argument("--share", action="store_true")
    parser.add_argument("--together", type=int, default=0, help="drivers that wait for each other")
    parser.add_argument("--value", type=int, default=1)
    parser.add_argument("--poison", help="box of a block that kills its process")
    words = parser.parse_args()

    from blockfiles import job

    from daskflow.clusters import connect
    from daskflow.jobs import Interrupted, keeper, ledger, stage_run

    ledger._EVERY = keeper._SAVE_EVERY = 0.02
    if words.share:
        stage_run._TASK_SECONDS, stage_run._OVERLAP_BLOCKS = words.seconds / 2, 1  # so that no driver takes many
        keeper.Keeper.__init__.__kwdefaults__["interval"] = 2.0
    chosen = nullcontext() if words.cluster == "auto" else connect(words.cluster, workers=1)
    with chosen as client:
        if words.together:
            wait_for_others(words.folder / "ready", words.together)
        try:
            poison = {"kills": {words.poison: -1}, "signal": signal.SIGSEGV} if words.poison else {}
            options = {"blocks": words.blocks, "seconds": words.seconds, "value": words.value, **poison}
            report = job(words.folder, **options)[0].run(client, share=words.share)
            sys.stdout.write(f"{report}\n")
        except Interrupted as error:
            sys.stdout.write(f"{error}\n")
            sys.exit(130)
    sys.exit(0 if report.ok else 2)


if __name__ == "__main__":
    main()
