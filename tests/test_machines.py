"""Machines, without any: how ssh is called, what is made of a survey, and which places there are."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from stemlab.engine import machines, manifest, ssh, survey
from stemlab.engine.slots import Slot
from stemlab.engine.worker_process import Spawned, WorkerProcess
from stemlab.errors import EngineError, SpecError
from stemlab.spec import EngineSpec, MachineSpec

A = MachineSpec(host="a.example", user="ada", python="/p")
B = MachineSpec(host="b.example", user="ada", port=2222, python="/p")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada@a.example", ("ada", "a.example", 22)),
        ("ada@a.example:2222", ("ada", "a.example", 2222)),
        ("ada@[2001:db8::1]:2222", ("ada", "2001:db8::1", 2222)),
        ("ada@[2001:db8::1]", ("ada", "2001:db8::1", 22)),
    ],
)
def test_a_machine_is_read_from_its_address(text, expected):
    machine = machines.parse(text, "/p", "/k")
    assert (machine.user, machine.host, machine.port) == expected
    assert (machine.python, machine.key) == ("/p", "/k")


@pytest.mark.parametrize(
    "text", ["", "a.example", "ada@", "@a", "ada@-oX=y", "ada@a:0", "ada@a:99999", "ada@::1", "a b@c"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(SpecError, match="--machine"):
        machines.parse(text, "/p")


def test_a_relative_interpreter_is_refused():
    with pytest.raises(SpecError, match="python"):
        machines.parse("ada@a.example", "python3")


def test_ssh_asks_nothing_trusts_nobody_and_runs_a_fixed_text(tmp_path, monkeypatch):
    key = tmp_path / "50% key"
    key.touch()
    monkeypatch.setattr(ssh.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv("STEMLAB_KNOWN_HOSTS", raising=False)
    machine = B.replace(key=str(key), python="/p'; reboot; '")
    command = ssh.command(machine, ssh.WORKER)
    sure = {"BatchMode=yes", "StrictHostKeyChecking=yes", "PasswordAuthentication=no", "ClearAllForwardings=yes"}
    assert sure <= {*command}
    assert not any(part.startswith("UserKnownHostsFile") for part in command)
    assert f'IdentityFile="{tmp_path}/50%% key"' in command
    assert command[-7:] == ["-p", "2222", "-l", "ada", "--", "b.example", ssh.WORKER]
    assert not any("reboot" in part for part in command)


def test_a_missing_ssh_is_said(monkeypatch):
    monkeypatch.setattr(ssh.shutil, "which", lambda name: None)
    with pytest.raises(EngineError, match="openssh-client"):
        ssh.command(A, ssh.PROGRAM)


def found(**changes):
    hardware = {"cores": 3, "gpus": [{"index": i, "name": "H200", "memory_mib": 1} for i in (0, 1)]}
    same = {"versions": manifest.versions(), "source": survey.source(), "hardware": hardware, "clock": 1000.0}
    return same | {"torch": "cuda, 2 devices", "disk_free_gib": 50.0} | changes


def judged(**changes):
    return machines._judged(A, found(**changes), 1000.0)


def test_what_a_survey_says_is_judged():
    versions = manifest.versions()
    assert judged().problems == judged().notes == ()
    assert judged(versions=versions | {"torch": f"{versions['torch'].partition('+')[0]}+cu999"}).problems == ()
    [problem] = judged(versions=versions | {"timm": "0.1"}).problems
    assert problem == f"timm is 0.1 there and {versions['timm']} here: /p -m pip install timm=={versions['timm']}"
    [note] = judged(versions=versions | {"numpy": "0.1"}).notes
    assert note.startswith("numpy is 0.1 there")
    [problem] = judged(source="another").problems
    assert "another source" in problem
    [problem] = judged(torch="cpu").problems
    assert "torch sees none" in problem
    [problem] = judged(disk_free_gib=0.5).problems
    assert "0.5 GiB" in problem
    [problem] = judged(hardware=None, broken="ImportError: x").problems
    assert "ImportError: x" in problem
    [note] = judged(clock=1100.0).notes
    assert "+100 s" in note


def test_places_are_taken_from_each_machine_in_turn():
    one = judged()
    other = machines._judged(B, found(hardware={"cores": 2, "gpus": []}, torch="cpu"), 1000.0)
    gpu, cpu = [(A, Slot((i,), 1)) for i in (0, 1)], (B, Slot((), 1))
    assert machines.places(EngineSpec(), [one, other], 99) == [gpu[0], cpu, gpu[1], cpu]
    assert machines.places(EngineSpec(), [one, other], 3) == [gpu[0], cpu, gpu[1]]
    assert machines.places(EngineSpec(workers=2), [one, other], 99) == [gpu[0], cpu]
    assert len(machines.places(EngineSpec(gpus_per_trial=0), [one, other], 99)) == 5
    with pytest.raises(EngineError, match="must be a number"):
        machines.places(EngineSpec(trials_per_gpu="auto"), [one], 99)
    with pytest.raises(EngineError, match="room for 4"):
        machines.places(EngineSpec(workers=5), [one, other], 99)
    with pytest.raises(EngineError, match=r"ada@b\.example:2222: .*gpus_per_trial"):
        machines.places(EngineSpec(gpus_per_trial=1), [one, other], 99)


def test_a_machine_that_is_listed_twice_is_refused():
    with pytest.raises(EngineError, match="twice"):
        machines.require([A, A.replace(python="/q")])


def test_what_a_login_shell_says_first_is_not_taken_for_the_worker():
    worker = WorkerProcess(partial(Spawned, ["sh", "-c", 'echo welcome; echo; echo \'{"event": "ready"}\'; cat']))
    try:
        worker.await_ready()
        assert worker.ready
    finally:
        worker.close()


def test_the_signal_that_ended_a_worker_is_told_also_by_its_shell():
    for program in ("kill -9 $$", f"'{sys.executable}' -c 'import os; os.kill(os.getpid(), 9)'; exit $?"):
        worker = WorkerProcess(partial(Spawned, ["sh", "-c", program]))
        with pytest.raises(Exception, match="SIGKILL"):
            worker.await_ready()
        worker.close()
