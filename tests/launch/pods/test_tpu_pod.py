"""The commands of launch.tpu_pod, its dry run, and what it does after preemptions and errors."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from launch.pods.commands import ROOT
from launch.pods.queued_resource import MAX_FAILURES
from launch.tpu_pod import main

NOT_FOUND = "ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: no such resource"
TRAIN = ["--topology", "v5e:4x4", "--config", "configs/demo.py:stage3", "--workdir", "/gcs/stage3"]
ROWS = ["--", "--config.batch_rows=16"]
RESUME = ["resume", "smol", "--zone", "z", "--spot", *TRAIN, *ROWS]
STATUS = "if [ -f smolrgpt_jax/launch/pods/tpu_worker.sh ]; then bash smolrgpt_jax/launch/pods/tpu_worker.sh status; else echo none; fi"
SSH = "gcloud compute tpus tpu-vm ssh smol --zone=z --worker=all"
ARCHIVE = Path.home() / ".smol.tar.gz"
COPY = f"tar --exclude=__pycache__ -czf {ARCHIVE} -C {ROOT} configs convert eval launch smolrgpt_jax requirements.txt pyproject.toml"
UNPACK = "mkdir -p smolrgpt_jax && tar -xzf smolrgpt_jax.tar.gz -C smolrgpt_jax"
SCP = f"gcloud compute tpus tpu-vm scp {ARCHIVE} smol:smolrgpt_jax.tar.gz --zone=z --worker=all"
CREATE = (
    "gcloud compute tpus queued-resources create smol --zone=z --node-id=smol --accelerator-type=v5litepod-16 "
    "--runtime-version=v2-alpha-tpuv5-lite --spot"
)
DELETE = "gcloud compute tpus queued-resources delete smol --zone=z --force --quiet"
DESCRIBE = "gcloud compute tpus queued-resources describe smol --zone=z '--format=value(state.state)'"
START = f"{SSH} '--command=bash smolrgpt_jax/launch/pods/tpu_worker.sh start --config=configs/demo.py:stage3 --workdir=/gcs/stage3 --config.batch_rows=16'"
INSTALL = [COPY, SCP, f"{SSH} '--command={UNPACK} && bash smolrgpt_jax/launch/pods/tpu_worker.sh install'"]


def lines(recorder) -> list[str]:
    return [shlex.join(command) for command in recorder.commands]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["create", "smol", "--zone", "z", "--topology", "v5e:4x4", "--spot"], [CREATE]),
        (
            ["create", "smol", "--zone", "z", "--project", "p", "--topology", "v5p:2x2x2", "--slices", "2"],
            [
                "gcloud compute tpus queued-resources create smol --zone=z --project=p --node-count=2 --node-prefix=smol "
                "--accelerator-type=v5p-16 --runtime-version=v2-alpha-tpuv5"
            ],
        ),
        (["wait", "smol", "--zone", "z"], [DESCRIBE]),
        (["install", "smol", "--zone", "z"], INSTALL),
        (
            ["install", "smol", "--zone", "z", "--bucket", "b"],
            [COPY, SCP, f"{SSH} '--command={UNPACK} && bash smolrgpt_jax/launch/pods/tpu_worker.sh install b'"],
        ),
        (["run", "smol", "--zone", "z", *TRAIN, *ROWS], [START]),
        # Without its topology the chips are not known here: the training itself checks the rows.
        (["run", "smol", "--zone", "z", *TRAIN[2:]], [START.replace(" --config.batch_rows=16", "")]),
        (
            ["run", "smol", "--zone", "z", "--slices", "2", *TRAIN, "--", "--config.batch_rows=32"],
            [
                f"gcloud compute tpus tpu-vm ssh smol-{i} --zone=z --worker=all '--command=bash smolrgpt_jax/launch/pods/tpu_worker.sh "
                "start --config=configs/demo.py:stage3 --workdir=/gcs/stage3 --config.batch_rows=32'"
                for i in range(2)
            ],
        ),
        (
            ["logs", "smol", "--zone", "z"],
            [
                "gcloud compute tpus tpu-vm ssh smol --zone=z --worker=0 "
                "'--command=bash smolrgpt_jax/launch/pods/tpu_worker.sh logs 100'"
            ],
        ),
        (["stop", "smol", "--zone", "z"], [f"{SSH} '--command=bash smolrgpt_jax/launch/pods/tpu_worker.sh stop'"]),
        (["delete", "smol", "--zone", "z"], [DELETE]),
        (
            RESUME,
            [DESCRIBE, CREATE, DESCRIBE, f"{SSH} '--command={STATUS}'", *INSTALL, START, DESCRIBE]
            + [f"{SSH} '--command={STATUS}'"],
        ),
    ],
)
def test_commands_and_dry_run(arguments, expected, recorder, capsys):
    runner = recorder()
    main(arguments, runner)
    assert lines(runner) == expected
    main([arguments[0], "--dry_run", *arguments[1:]])
    assert capsys.readouterr().out.splitlines() == expected


def test_values_with_spaces_reach_the_host_in_one_piece(recorder):
    runner = recorder()
    main(["run", "smol", "--zone", "z", *TRAIN, *ROWS, "--config.tokenizer=my tokenizer"], runner)
    remote = runner.commands[0][-1].removeprefix("--command=")
    assert shlex.split(remote)[-1] == "--config.tokenizer=my tokenizer"


def test_wait_goes_on_until_the_slices_are_there(recorder):
    runner = recorder({"describe": ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]})
    main(["wait", "smol", "--zone", "z"], runner)
    assert lines(runner) == [DESCRIBE] * 3


@pytest.mark.parametrize(("state", "message"), [("FAILED", "says why"), ("SUSPENDED", "in vain")])
def test_wait_ends_when_there_is_nothing_to_wait_for(recorder, state, message):
    with pytest.raises(SystemExit, match=message):
        main(["wait", "smol", "--zone", "z"], recorder({"describe": [state]}))


def hosts(*answers: str) -> str:
    """What gcloud prints for the four hosts of v5e:4x4, with a line of its own."""
    return "\n".join(["Using ssh batch size of 4.", *(answers * 4)[:4]])


def test_resume_recreates_a_preempted_slice_and_runs_again(recorder):
    runner = recorder(
        {
            "describe": ["ACTIVE", "SUSPENDING", "SUSPENDED", "PROVISIONING", "ACTIVE", "ACTIVE", "ACTIVE"],
            "ssh": [hosts("running"), hosts("none"), hosts("running"), hosts("ended 0")],
        }
    )
    main(RESUME, runner)
    changing = [line for line in lines(runner) if line != DESCRIBE and "status" not in line]
    assert changing == [DELETE, CREATE, *INSTALL, START]
    assert "smol is SUSPENDED" in runner.said


def test_resume_starts_a_failed_training_again_but_not_for_ever(recorder):
    failed = hosts("ended 134", "ended 1")
    runner = recorder({"describe": ["ACTIVE"] * 9, "ssh": [failed, hosts("running"), failed, failed]})
    with pytest.raises(SystemExit, match="ended with an error 3 times"):
        main([RESUME[0], "--max_restarts", "2", *RESUME[1:]], runner)
    assert lines(runner).count(START) == 2
    assert COPY not in lines(runner)


def test_resume_waits_for_hosts_that_are_still_running(recorder):
    runner = recorder(
        {"describe": ["ACTIVE"] * 3, "ssh": [hosts("ended 1", "running"), hosts("running"), hosts("ended 0")]}
    )
    main(RESUME, runner)
    assert START not in lines(runner)


def test_resume_does_not_act_on_half_an_answer(recorder):
    runner = recorder({"describe": ["ACTIVE"] * 2, "ssh": ["none\nnone", hosts("ended 0")]})
    main(RESUME, runner)
    assert START not in lines(runner)
    assert "2 hosts do not answer" in runner.said


def test_resume_survives_a_slice_that_goes_in_the_middle_of_a_command(recorder):
    runner = recorder(
        {
            "describe": ["ACTIVE", "SUSPENDED", "ACTIVE", "ACTIVE"],
            "ssh": [hosts("none"), hosts("none"), hosts("ended 0")],
        }
    )
    runner.failing = lambda command: "scp" in command and shlex.join(command) not in lines(runner)[:-1]
    main(RESUME, runner)
    assert [DELETE, CREATE] == [line for line in lines(runner) if line in (DELETE, CREATE)]
    assert lines(runner).count(START) == 1


def test_resume_gives_up_when_nothing_works(recorder):
    runner = recorder({"describe": [NOT_FOUND] * MAX_FAILURES})
    runner.failing = lambda command: "create" in command
    with pytest.raises(SystemExit, match="gcloud failed"):
        main(RESUME, runner)
    assert lines(runner).count(CREATE) == MAX_FAILURES


def test_resume_ends_when_the_request_fails(recorder):
    runner = recorder({"describe": [NOT_FOUND, "FAILED"]})
    with pytest.raises(SystemExit, match="the request smol failed"):
        main(RESUME, runner)
    assert lines(runner).count(CREATE) == 1
