"""A driver to be killed: runs a job of files below a folder, on a cluster of one's choice."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cluster", default="threads")
    parser.add_argument("--blocks", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=0.02)
    words = parser.parse_args()

    from blockfiles import job

    from daskflow.clusters import connect
    from daskflow.jobs import Interrupted, journal

    journal._EVERY = 0.02
    with connect(words.cluster, workers=1) as client:
        try:
            report = job(words.folder, blocks=words.blocks, seconds=words.seconds)[0].run(client)
        except Interrupted as error:
            sys.stdout.write(f"{error}\n")
            sys.exit(130)
    sys.exit(0 if report.ok else 2)


if __name__ == "__main__":
    main()
