"""A scheduler with one worker, to be killed; says its address."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

if __name__ == "__main__":
    from daskflow.clusters import connect

    with connect("local", workers=1) as client:
        sys.stdout.write(client.scheduler.address + "\n")
        sys.stdout.flush()
        time.sleep(600)
