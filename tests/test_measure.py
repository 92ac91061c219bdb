"""What models take, measured: in turn, in processes of their own, with intervals that hold, and nothing made up."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from stemlab_cli.cost import print_measured as show

import stemlab
from stemlab.engine.measuring import FEWEST, ROUNDS, Range, _largest, _ratio, _rounds
from stemlab.errors import EngineError, SpecError
from stemlab.train.energy import Rapl
from stemlab.train.measure import Meter

BODY = {"dim": 32, "depth": 2, "heads": 2}
PATCHES = {"stem": {"patch": 8}, "body": BODY, "image_size": 32, "classes": 10}
DEEPER = {**PATCHES, "body": {**BODY, "depth": 8}}


@pytest.fixture(scope="module")
def measured():
    """A shallow and a deep model, measured in turn."""
    return stemlab.measure(PATCHES, DEEPER, batch=64, device="cpu", threads=1, seconds=0.6)


def test_all_is_told_that_a_machine_can_tell(measured):
    for one in measured:
        assert one.machine.keys() == {"cpu", "cores", "load", "gpu", "torch", "threads", "precision"}
        assert (one.machine["gpu"], one.machine["torch"], one.machine["threads"]) == (None, torch.__version__, 1)
        for mode in (one.inference, one.training):
            assert mode.batch == 64
            for times in (mode.latency, mode.batch_time):
                assert 0 < times.ms.low <= times.ms.median <= times.ms.high
                assert times.p90_ms > 0
                assert times.repeats >= FEWEST
            assert mode.images_per_second.median == pytest.approx(64_000 / mode.batch_time.ms.median)
            assert 0 < mode.processor_ms.low <= mode.processor_ms.median <= mode.processor_ms.high
            assert 0 < mode.bytes_before < mode.peak_bytes
        assert one.training.processor_ms.median > one.inference.processor_ms.median
    json.dumps([one.as_dict() for one in measured], allow_nan=False)


def test_a_model_is_compared_with_the_first(measured):
    first, deeper = measured
    assert first.inference.ratio is first.training.latency_ratio is None
    for mode in (deeper.inference, deeper.training):
        for ratio in (mode.ratio, mode.latency_ratio):
            assert 1 < ratio.median < 100  # it has four times the blocks
            assert ratio.low <= ratio.median <= ratio.high


@pytest.mark.slow
def test_the_command_tells_it_beside_the_closed_form(cli, tmp_path):
    (tmp_path / "model.yaml").write_text(json.dumps(PATCHES))
    options = (
        "--measure",
        "--batch",
        "2",
        "--threads",
        "1",
        "--precision",
        "bf16",
        "--seconds",
        "0.05",
        "--device",
        "cpu",
    )
    done = cli("cost", "model.yaml", *options, "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["params"] == stemlab.cost(PATCHES).params
    assert row["measured"]["machine"]["precision"] == "bf16"
    assert row["measured"]["training"]["batch"] == 2


def test_the_table_names_every_model_and_mode_and_the_machine(measured, capsys):
    rows = [{"spec": f"{name}.yaml", "measured": one.as_dict()} for name, one in zip("ab", measured, strict=True)]
    show(rows)
    shown = capsys.readouterr().out
    for words in (
        "a.yaml",
        "b.yaml",
        "images/s",
        "1 CPU threads",
        torch.__version__,
        rows[0]["measured"]["machine"]["cpu"],
    ):
        assert words in shown
    assert len(re.findall(r"\d \([\d.]+ to [\d.]+\) times", shown)) == 4


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch": 0}, "batch (=0): expected a whole number from 1"),
        ({"batch": 2.0}, "batch (=2.0)"),
        ({"batch": True}, "batch (=True)"),
        ({"threads": -1}, "threads (=-1)"),
        ({"seconds": 0}, "seconds (=0): expected a number above 0"),
        ({"seconds": math.nan}, "seconds (=nan)"),
        ({"seconds": "5"}, "seconds (='5')"),
        ({"precision": "fp8"}, "precision (='fp8'): expected one of fp32, bf16"),
        ({"precision": None}, "precision (=None)"),
        ({"device": "tpu"}, "device (='tpu'): expected cpu, cuda or cuda:1"),
    ],
)
def test_values_that_cannot_be_right_are_refused(options, named):
    with pytest.raises(SpecError) as raised:
        stemlab.measure(PATCHES, **options)
    assert named in str(raised.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [(("--batch", "4"), "--batch says how to measure; add --measure"), (("--measure", "--batch", "0"), "batch (=0)")],
)
def test_the_command_refuses_them_too(cli, options, named):
    done = cli("cost", "vit_p_1gf", *options)
    assert done.returncode == 2
    assert named in done.stderr
    assert done.stdout == ""


def test_a_device_that_is_not_there_is_told():
    with pytest.raises(EngineError, match="could not be measured"):
        stemlab.measure(PATCHES, device="cuda:99", seconds=0.01)


def meter(mode, precision="fp32"):
    return Meter(stemlab.match(PATCHES).model, mode, "cpu", precision)


def test_a_training_step_trains_and_an_inference_does_not():
    for mode in ("inference", "training"):
        made = meter(mode)
        before = {name: value.clone() for name, value in made.model.state_dict().items()}
        assert made.fits(2)
        changed = [name for name, value in made.model.state_dict().items() if not torch.equal(value, before[name])]
        assert bool(changed) == (mode == "training")
        assert made.model.training == (mode == "training")
        assert all(p.grad is None for p in made.model.parameters()) == (mode == "inference")


def test_the_first_call_does_not_count_unless_it_is_the_only_one():
    made = meter("inference")
    calls = []
    once, made._once = made._once, lambda batch: (calls.append(batch), once(batch))
    assert len(made.repeat(1, 0.1)["seconds"]) == len(calls) - 1 > 0
    calls.clear()
    assert len(made.repeat(3, 1e-9)["seconds"]) == 1
    assert calls == [3]


def test_memory_grows_with_the_batch_and_is_asked_for_before_it_is_taken():
    made = meter("training")
    made.fits(256)
    small = made.memory()["peak_bytes"]
    assert made.room(512)
    assert not made.room(2**40)
    made.fits(2048)
    assert made.memory()["peak_bytes"] > small > made.memory()["bytes_before"] > 0


class Scripted:
    """What a process answers that has memory for so many images, and takes 1 ms for each."""

    def __init__(self, memory: int, asked: list, fails: bool = False) -> None:
        self.memory, self.asked, self.fails = memory, asked, fails

    def ask(self, question, *values):
        """Answer as a Meter does: a GPU fails, a CPU is asked whether it would."""
        self.asked.append((id(self), question, *values))
        if question == "repeat":
            return {"seconds": [values[0] / 1000], "processor_seconds": 0.001, "joules": None}
        return values[0] <= self.memory or (question == "room" if self.fails else question == "fits")


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize(("batch", "memory", "fitting"), [(64, 64, 64), (64, 63, 32), (48, 5, 3), (7, 1, 1), (1, 9, 1)])
def test_the_batch_is_halved_until_all_have_memory_for_it(batch, memory, fitting, fails):
    asked = []
    assert _largest([Scripted(1000, asked), Scripted(memory, asked, fails)], batch) == fitting
    tried = max(values[2] for values in asked if values[1] == "fits")
    assert tried == (min(batch, 2 * fitting + batch % 2) if fails and fitting < batch else fitting)


def test_no_room_for_one_image_is_an_error():
    with pytest.raises(EngineError, match="too little memory"):
        _largest([Scripted(0, [], fails=True)], 4)


def test_models_have_their_turns_one_after_the_other():
    asked = []
    pair = [Scripted(1, asked), Scripted(1, asked)]
    rounds = _rounds(pair, 8, seconds=100.0)
    assert [len(turns) for turns in rounds] == [ROUNDS, ROUNDS]
    assert [who for who, *_ in asked] == [id(one) for one in pair] * (ROUNDS + 1)  # and one round to warm up
    slow = _rounds(pair, 8, seconds=1e-6)
    assert [len(turns) for turns in slow] == [FEWEST, FEWEST]
    assert _ratio(*slow) == Range(1.0, 1.0, 1.0)


def test_intervals_hold_the_median_as_often_as_they_say():
    drawn = np.random.default_rng(0).lognormal(sigma=0.5, size=(400, ROUNDS))
    found = [Range.of(list(values)) for values in drawn]
    assert np.mean([one.low <= 1 <= one.high for one in found]) > 0.92  # at least 0.95, less three errors of the draw
    assert all(one.low <= one.median <= one.high for one in found)
    assert math.isfinite(Range.of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).high)


def zone(folder: Path, name: str, energy: int) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{energy}\n")
    (folder / name / "max_energy_range_uj").write_text("10000000\n")


def test_energy_is_that_of_all_packages_also_where_a_counter_begins_anew(tmp_path):
    zone(tmp_path, "intel-rapl:0", 9_000_000)
    zone(tmp_path, "intel-rapl:1", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", 5)  # the cores: part of package 0
    counter = Rapl.found(tmp_path)
    zone(tmp_path, "intel-rapl:0", 500_000)
    zone(tmp_path, "intel-rapl:1", 1_250_000)
    zone(tmp_path, "intel-rapl:0:0", 9_000_000)
    assert counter.joules() == pytest.approx(1.75)
    counter.start()
    assert counter.joules() == 0


def test_a_machine_without_counters_tells_no_energy(tmp_path):
    assert Rapl.found(tmp_path) is None
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "max_energy_range_uj").write_text("10")
    assert Rapl.found(tmp_path) is None  # there, but not to be read
