"""Ten thousand trials, tried by simulation: what a search costs in time and memory when nothing is trained.

    python benchmarks/scale.py [--trials 10000] [--tuner tpe] [--concurrency 32] [--workers 16] [--seconds 0.5]
    python benchmarks/scale.py --concurrency 1000 --threads

A real search (proposer, loop, records on the disk) over a space of 1e9 stems, whose trials wait in real worker
processes and report ten epochs (simulated_work.py). With --threads they wait in this process, a thread each, to see
what a thousand slots cost. Then a fresh process takes the study up again, and another writes its report.

Wall times are those of the machine as it is; the processor time of the search's own process, beside them, is hardly
touched by what else runs there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cost_speed import WIDE
from simulated_work import sleep

import stemlab
from stemlab.engine.embedded import EmbeddedRunner
from stemlab.engine.loop import TrialLoop
from stemlab.engine.proposer import TunerProposer
from stemlab.engine.quiet import Quiet
from stemlab.engine.runner import Progress as Rows
from stemlab.engine.runner import Runner
from stemlab.engine.searching import Progress, Proposals
from stemlab.engine.slots import Slot
from stemlab.records import StudyFolder, TrialRecord
from stemlab.running import load_search
from stemlab.spec import Order

STUDY = Path(__file__).parents[1] / "search_spaces" / "conv3x3.yaml"


class Threads:
    """A runner that has a thread for each slot and no process."""

    def __init__(self, slots: int) -> None:
        self.slots = slots

    def run(self, order: Order, progress: Rows) -> TrialRecord:
        """Wait here."""
        return sleep(order, progress)

    def close(self) -> None:
        """Nothing to stop."""


class Meter(Quiet):
    """Prints, for every tenth of the trials, how fast they came and what this process has taken."""

    def __init__(self, trials: int) -> None:
        self.every, self.count = max(1, trials // 10), 0
        self.before = (time.perf_counter(), time.process_time())

    def finished(self, record: TrialRecord, reused: bool) -> None:
        """Count."""
        self.count += 1
        if self.count % self.every == 0:
            now = (time.perf_counter(), time.process_time())
            wall, own = (b - a for a, b in zip(self.before, now, strict=True))
            self.before = now
            print(
                f"{self.count:>7,} trials: {60 * self.every / wall:7,.0f} a minute, "
                f"{1000 * own / self.every:6.1f} ms of our processor time each, {memory():4.0f} MB",
                flush=True,
            )


def memory(what: str = "VmRSS") -> float:
    """Return the megabytes of memory that this process has now (VmRSS) or has had at most (VmHWM)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


def run(folder: Path, options: argparse.Namespace, runner: Runner, resume: bool = False) -> int:
    """Search, or go on with a search; return the number of records."""
    changes = [
        *WIDE,
        f"search.trials={options.trials}",
        f"search.tuner={options.tuner}",
        f"search.concurrency={options.concurrency}",
    ]
    candidates = load_search(STUDY, changes)
    study = StudyFolder(folder)
    study.open_to_write(candidates.study.canonical(), resume)
    meter = Meter(options.trials)
    try:
        study.write_json("manifest.json", {})
        source = Proposals(Progress(candidates.study.search, TunerProposer(candidates), meter.note))
        TrialLoop(source, runner, study, meter, study.records()).run()
    finally:
        study.close()
    return meter.count


def search(folder: Path, options: argparse.Namespace) -> None:
    """Run the whole search."""
    runner: Runner = (
        Threads(options.concurrency)
        if options.threads
        else EmbeddedRunner([Slot((), 1)] * options.workers, work="simulated_work:sleep")
    )
    timed("search", run, folder, options, runner)


def resume(folder: Path, options: argparse.Namespace) -> None:
    """Take up the finished search: every proposal is made again, every record found."""
    timed("resume", run, folder, options, Threads(options.concurrency), True)


def report(folder: Path, options: argparse.Namespace) -> None:
    """Find the best and write the report."""
    study = stemlab.Study(folder)
    timed("best", study.find_best)
    page = timed("report", study.report)
    print(f"report.html: {page.stat().st_size / 2**20:.1f} MB")


def timed(name: str, function, *arguments):
    wall, own = time.perf_counter(), time.process_time()
    result = function(*arguments)
    wall, own = time.perf_counter() - wall, time.process_time() - own
    print(f"{name}: {wall:.1f} s, {own:.1f} s of processor time, at most {memory('VmHWM'):.0f} MB", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--tuner", default="tpe")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--threads", action="store_true")
    parser.add_argument("--seconds", default="0.5")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", choices=("search", "resume", "report"))
    options = parser.parse_args()
    os.environ["STEMLAB_SIMULATED_SECONDS"] = options.seconds
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # where the workers find simulated_work
    if options.only:
        {"search": search, "resume": resume, "report": report}[options.only](options.folder, options)
        return
    with tempfile.TemporaryDirectory() as folder:
        place = options.folder or Path(folder) / "study"
        for step in ("search", "resume", "report"):
            command = [sys.executable, __file__, *sys.argv[1:], "--only", step, "--folder", str(place)]
            subprocess.run(command, check=True)
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        records = (place / "records.jsonl").stat().st_size
        print(f"study folder: {size / 2**20:.0f} MB, of which records.jsonl {records / 2**20:.0f} MB")


if __name__ == "__main__":
    main()
