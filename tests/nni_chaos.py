"""A trial of NNI's that goes wrong in many ways, and mostly runs stemlab's client in the end.

It starts in the folder of that client, as the client would.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.getcwd())
import trial

chance = random.Random(os.environ["NNI_TRIAL_SEQ_ID"])
fate = chance.choice(["well", "well", "well", "before", "after", "junk", "double", "killed"])
nni = trial._Nni(os.environ["NNI_TRIAL_COMMAND_CHANNEL"], os.environ["NNI_TRIAL_JOB_ID"])
JUNK = (0.5, "text", None, {}, {"no default": 1}, {"default": math.nan}, {"default": math.inf}, {"record": 7}, [1])


def send(result):
    """Report as any code in a trial might: the number of the job is a guess."""
    for number in (int(os.environ["NNI_TRIAL_SEQ_ID"]), None, "x"):
        metric = {"parameter_id": number, "trial_job_id": nni._job, "type": "FINAL", "sequence": 0}
        command = {"type": "metric", "metric": json.dumps({**metric, "value": json.dumps(result)})}
        nni._ask("PUT", command)


time.sleep(chance.random() * 0.3)
if fate == "before":
    sys.exit(1)
if fate == "after":
    nni.order()
    sys.exit(chance.choice([0, 1]))
if fate == "junk":
    for result in JUNK:
        send(result)
if fate == "killed":
    threading.Timer(0.1 + chance.random() * 0.3, os.kill, (os.getpid(), 9)).start()
code = trial.main()
if fate == "double":
    for result in JUNK:
        send(result)
sys.exit(code)
