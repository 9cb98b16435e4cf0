"""A driver to be killed: runs a job of files below a folder, on a cluster of one's choice."""

import argparse
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cluster", default="threads")
    parser.add_argument("--blocks", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=0.02)
    parser.add_argument("--poison", help="box of a block that kills its process")
    words = parser.parse_args()

    from blockfiles import job

    from daskflow.clusters import connect
    from daskflow.jobs import Interrupted, ledger

    ledger._EVERY = 0.02
    chosen = nullcontext() if words.cluster == "auto" else connect(words.cluster, workers=1)
    with chosen as client:
        try:
            poison = {"kills": {words.poison: -1}, "signal": signal.SIGSEGV} if words.poison else {}
            report = job(words.folder, blocks=words.blocks, seconds=words.seconds, **poison)[0].run(client)
        except Interrupted as error:
            sys.stdout.write(f"{error}\n")
            sys.exit(130)
    sys.exit(0 if report.ok else 2)


if __name__ == "__main__":
    main()
