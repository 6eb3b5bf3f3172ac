"""How a job's command starts on the GPUs that it has: `bpgo.run.job` asks.

Needs no packages, and little of Python: every job waits for this import.
"""

from __future__ import annotations

ACCELERATE = f"{__file__.rpartition('/bpgo/')[0]}/workflow/accelerate.yaml"


def launched(gpus: int, command: list[str]) -> list[str]:
    """`python ARGUMENTS` on GPUs of its own (`bpgo.run.slots`), in as many processes as GPUs.

    Several processes are those of `accelerate launch`, without the imports of accelerate's other
    commands. Without GPUs the command stays as it is.
    """
    if gpus == 0:
        return command
    python, *arguments = command
    slots = [python, "-m", "bpgo.run.slots", str(gpus)]
    if gpus == 1:
        return [*slots, *command]
    launcher = ["-m", "accelerate.commands.launch", "--config_file", ACCELERATE, "--multi_gpu"]
    launcher += ["--num_machines", "1", "--num_processes", str(gpus)]
    # Weights have the types that the configuration says; port 0 is any that is free.
    launcher += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    return [*slots, python, *launcher, *arguments]
