"""What a contestant's process says: a line of JSON when it is ready, and one for each line that asks for a round."""

import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np


# On one thread, processor time is what the wall would show on a machine that does nothing else.
clock = time.process_time if os.environ.get("FISHY_BENCH_CLOCK") == "cpu" else time.perf_counter


def memory(field="VmRSS"):
    """Resident set of this process in bytes; VmHWM is the largest."""
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def work_of(folder):
    """The description of a work, its data and its labels (None where the data are the target)."""
    folder = Path(folder)
    work = json.loads((folder / "work.json").read_text())
    dtype = np.int64 if work.get("tokens") else np.float32
    x = np.fromfile(folder / "x.bin", dtype).reshape(work["batch"], *work["dims"])
    labels = np.fromfile(folder / "labels.bin", np.int64) if work.get("classes") else None
    return work, x, labels


def serve(ready, steps):
    """`steps`: a function for each kind of step. Those called `roots` run once in a round, others as often as asked."""
    sys.stdout.write(json.dumps({**ready, "kinds": list(steps), "ready": True}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        repeat = json.loads(line).get("repeat")
        if repeat is None:
            print(json.dumps({"peak": memory("VmHWM")}), flush=True)
            return
        times = {}
        for kind, step in steps.items():
            times[kind] = []
            for _ in range(1 if kind == "roots" else repeat):
                start = clock()
                step()
                times[kind].append(1000 * (clock() - start))
        print(json.dumps({"times": times}), flush=True)
