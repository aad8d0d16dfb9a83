"""A domain report on 50,000 samples of 512 features, 10 classes and 5 domains, in a process of its own.

The target is half a minute on two threads with less than 4 GiB of memory in all, the features' included.
"""

import json
import resource
import subprocess
import sys
import time

import torch

import hessalign as ha
from benchmarks.timing import Comparison
from hessalign.memory import keep_freed_memory

SAMPLES, WIDTH, CLASSES, DOMAINS = 50_000, 512, 10, 5
TARGET_SECONDS, TARGET_GIB = 30, 4


def run() -> list[Comparison]:
    """Time one report; what else this process holds must not count as the report's memory."""
    command = [sys.executable, "-m", "benchmarks.domain_report"]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    against = f"half a minute; peak memory {found['gib']:.2f} GiB, {TARGET_GIB} allowed"
    return [Comparison("domain report", against, found["seconds"], TARGET_SECONDS, "cost", 1.0)]


def main() -> None:
    """Make one report and print its seconds and the process's peak memory."""
    keep_freed_memory()  # as hessalign inspect does
    torch.manual_seed(0)
    head = torch.randn(CLASSES, WIDTH) / WIDTH**0.5
    labels = torch.randint(0, CLASSES, (SAMPLES,))
    domains = torch.arange(SAMPLES) % DOMAINS
    features = torch.randn(SAMPLES, WIDTH) + head[labels] + 0.1 * domains.unsqueeze(1)
    started = time.perf_counter()
    ha.alignment_report(features, features @ head.T, labels, domains)
    seconds = time.perf_counter() - started
    unit = 2**30 if sys.platform == "darwin" else 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(json.dumps({"seconds": seconds, "gib": peak, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
