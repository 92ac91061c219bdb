"""A trial as NNI's manual has it: get the parameters, import what is needed, train, report."""

import json
import os
import time
from pathlib import Path

import nni


def main() -> None:
    number = nni.get_next_parameter()["trial"]
    os.environ["HOME"] = os.environ["TRIAL_HOME"]

    import torch

    from stemlab.spec import TrialSpec
    from stemlab.train import run_trial

    torch.set_num_threads(1)
    trial = TrialSpec.model_validate_json(Path(os.environ["TRIALS"]).read_text().splitlines()[number])
    record = run_trial(trial, lambda row: nni.report_intermediate_result(row["top1"]))
    nni.report_final_result(record.metrics.get("top1", 0.0))
    result = {"seconds": record.metrics["seconds"], "ended": time.time()}
    (Path(os.environ["RESULTS"]) / f"{number}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
