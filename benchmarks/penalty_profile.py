"""Where the time of a penalty goes: a batch of 3 domains of 32, 7 classes, 2,048 features, one thread.

Shares of the profiled time, forward plus backward of the penalty alone: matrix products; copies, which are
conversions to float64 and back, and joined domains; all other operations of PyTorch; and what lies between
them, Python and the book-keeping of automatic differentiation. Calls are PyTorch's operations that compute,
as many as a step takes.
"""

from collections import defaultdict

from torch.profiler import ProfilerActivity, profile

from benchmarks.penalties import CLASSES, DOMAINS, PENALTIES, PLUG_INS, SAMPLES, WIDTH, Batch
from benchmarks.timing import one_thread

STEPS, WARM_UP = 50, 20
NAMES = ("erm", *PENALTIES, *(f"unbiased {name}" for name in PLUG_INS), "HGP by double backward")
PRODUCTS = {"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::dot"}
COPIES = {"aten::copy_", "aten::cat", "aten::clone", "aten::fill_"}
# Views and allocations: they touch no values.
SHAPES = (
    "view",
    "expand",
    "slice",
    "reshape",
    "strided",
    "squeeze",
    "transpose",
    "permute",
    "empty",
    "detach",
)


def table() -> str:
    """Profile every penalty; a table of shares in percent."""
    lines = [
        "| what | products [%] | copies [%] | other operations [%] | between operations [%] | calls |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    steps = Batch(DOMAINS, SAMPLES, CLASSES, WIDTH).steps()
    with one_thread():
        for name in NAMES:
            for _ in range(WARM_UP):
                steps[name]()
            with profile(activities=[ProfilerActivity.CPU]) as found:
                for _ in range(STEPS):
                    steps[name]()
            seconds: dict[str, float] = defaultdict(float)
            calls = 0
            for event in found.key_averages():
                kind = _kind(event.key)
                seconds[kind] += event.self_cpu_time_total
                calls += event.count if kind in ("products", "copies", "other") else 0
            whole = sum(seconds.values())
            shares = [100 * seconds[kind] / whole for kind in ("products", "copies", "other", "between")]
            figures = " | ".join(f"{share:.0f}" for share in shares)
            lines.append(f"| {name} | {figures} | {calls / STEPS:.0f} |")
    return "\n".join(lines)


def _kind(operation: str) -> str:
    if operation in PRODUCTS:
        return "products"
    if operation in COPIES:
        return "copies"
    if not operation.startswith("aten::") or any(word in operation for word in SHAPES):
        return "between"
    return "other"
