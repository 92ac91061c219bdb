"""Do a patchify and a convolutional stem at equal flops take equal time? ViT_P-1GF and ViT_C-1GF at 224 pixels.

    python benchmarks/equal_runtime.py [sessions [batch [seconds [threads [device]]]]]

Each session measures both models in turn (A, B, A, B, ...), in processes of their own, as `stemlab cost --measure`
does. What a process has by chance (where its memory lies, say) differs between sessions, so medians are of sessions.
"""

from __future__ import annotations

import sys
from statistics import median

import stemlab
from stemlab.engine.measuring import MODES, Measured, ModeCost
from stemlab.quantities import human

MODELS = ("vit_p_1gf", "vit_c_1gf")


def main() -> None:
    given = (*sys.argv[1:], *("3", "16", "20", "1", "cpu")[len(sys.argv) - 1 :])
    sessions, batch, seconds, threads, device = int(given[0]), int(given[1]), float(given[2]), int(given[3]), given[4]
    found: list[tuple[Measured, ...]] = []
    for number in range(sessions):
        found.append(stemlab.measure(*MODELS, batch=batch, device=device, threads=threads, seconds=seconds))
        for mode in MODES:
            ratios = [getattr(found[-1][1], mode).ratio, getattr(found[-1][1], mode).latency_ratio]
            shown = ", ".join(f"{one.median:.3f} ({one.low:.3f} to {one.high:.3f})" for one in ratios)
            print(f"session {number + 1}, {mode}: {MODELS[1]} / {MODELS[0]} {shown} with one image", flush=True)
    machine = found[0][0].machine
    print(f"\n{machine['gpu'] or machine['cpu']}, {machine['threads']} CPU threads, torch {machine['torch']}, ", end="")
    load = max(session[0].machine["load"] for session in found)
    print(
        f"{machine['precision']}; medians of {sessions} sessions, load up to {load:.1f} on {machine['cores']} cores\n"
    )
    print(
        "| | one image | batch | images/s | CPU ms an image | peak memory | time over ViT_P's | of one image | of CPU |"
    )
    print("|---" * 9 + "|")
    for mode in MODES:
        first, second = ([getattr(session[index], mode) for session in found] for index in (0, 1))
        for name, costs in zip(MODELS, (first, second), strict=True):
            print(f"| `{name}`, {mode} | {_row(costs, first)} |")


def _row(costs: list[ModeCost], first: list[ModeCost]) -> str:
    peaks = [one.peak_bytes for one in costs if one.peak_bytes is not None]
    cells = [
        f"{median(one.latency.ms.median for one in costs):.1f} ms",
        str(costs[0].batch),
        f"{median(one.images_per_second.median for one in costs):.1f}",
        f"{median(one.processor_ms.median for one in costs):.1f}",
        f"{human(median(peaks))}B" if peaks else "not told",
        _ratio([one.ratio.median for one in costs if one.ratio]),
        _ratio([one.latency_ratio.median for one in costs if one.latency_ratio]),
        _ratio(
            [a.processor_ms.median / b.processor_ms.median for a, b in zip(costs, first, strict=True) if a is not b]
        ),
    ]
    return " | ".join(cells)


def _ratio(found: list[float]) -> str:
    return f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f})" if found else "1"


if __name__ == "__main__":
    main()
