"""A study of simulated trials through NNI's manager, as a process that can be killed.

It prints the page's URL and the private folder, then whatever becomes of the trials.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

from stemlab.engine.manager.runner import NniRunner
from stemlab.engine.manager.service import local
from stemlab.engine.slots import Slot
from stemlab.spec import Order, TrialSpec

if __name__ == "__main__":
    base = TrialSpec.model_validate(json.loads(sys.argv[1]))
    runner = NniRunner(local([Slot((), 1)] * 2, work="nni_work:with_child"), retries=8)
    try:
        print(json.dumps({"page": runner.page, "folder": str(runner._folder)}), flush=True)
        orders = [Order(trial=base.replace(seed=seed)) for seed in range(int(sys.argv[2]))]
        with ThreadPoolExecutor(2) as pool:
            records = list(pool.map(lambda order: runner.run(order, lambda row: None), orders))
    finally:
        runner.close()
    print(json.dumps([record.status for record in records]))
