"""A domain report on 50,000 samples of 512 features, 10 classes and 5 domains: python -m benchmarks.domain_report."""

import resource
import sys
import time

import torch

import hessalign as ha

SAMPLES, WIDTH, CLASSES, DOMAINS = 50_000, 512, 10, 5
TARGET_SECONDS, TARGET_GIB = 30, 4


def main() -> None:
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
    print(f"{seconds:.1f} s (target {TARGET_SECONDS}), peak memory {peak:.2f} GiB (target {TARGET_GIB})")
    print(f"{torch.get_num_threads()} threads; processor time {time.process_time():.1f} s in all")


if __name__ == "__main__":
    main()
