"""Jobs that a server forks are the jobs of a fresh process, and nothing of it outlives its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from warm_jobs import COLD, PATIENCE, Endless, Run, files_of, gone, until, words

from bpgo.config import resolve as config
from bpgo.run.warm import folder, modules
from bpgo.storage.files import repository_root

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server needs Linux")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    found = Run(tmp_path)
    yield found
    found.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run for the tests that leave its server as it is; the configuration lies beside."""
    found = Run(tmp_path_factory.mktemp("shared"))
    config.save_resolved(config.load(config.default_configfile()), found.place / "config.yaml")
    yield found
    found.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ["prompts", "--config", "config.yaml", "--split", "train", "--output", "out.jsonl"],
        ["prompts", "--config", "missing.yaml", "--split", "train", "--output", "out.jsonl"],
        ["prompts", "--config", "config.yaml", "--split", "tarin", "--output", "out.jsonl"],
        ["prompt"],
        ["prompts", "--confg", "x"],
        ["--help"],
        [],
        ["schema"],
    ],
    ids=lambda words: " ".join(words)[:30] or "nothing",
)
def test_a_warm_job_is_a_cold_one(shared: Run, arguments: list[str]) -> None:
    found = {}
    for kind, environment in (("cold", COLD), ("warm", {})):
        outcome = shared.job(*arguments, environment=environment)
        made = shared.place / "out.jsonl"
        found[kind] = outcome, made.read_bytes() if made.exists() else None
        made.unlink(missing_ok=True)
    assert found["warm"] == found["cold"]
    assert shared.servers()


def test_jobs_side_by_side_have_their_own_output(shared: Run) -> None:
    jobs = [Endless(shared, f"pipe_{number}") for number in range(2)]
    assert jobs[0].process != jobs[1].process
    ends = [job.finish("[]") for job in reversed(jobs)][::-1]
    for number, (code, errors) in enumerate(ends):
        assert code == 2
        assert errors == f"error: {jobs[number].pipe}: must hold a mapping of keys to values\n"
    assert len(shared.servers()) == 1


def test_first_jobs_together_start_one_server(run: Run) -> None:
    jobs = [run.start("python", "-m", "bpgo", "prompts", "--config", "x") for _ in range(4)]
    for job in jobs:
        job.communicate(timeout=PATIENCE)
        assert job.returncode == 2
    assert len(run.servers()) == 1


def test_the_process_has_what_the_job_has_and_nothing_of_the_server(shared: Run) -> None:
    job = Endless(shared, umask=0o027, environment={"PWD": "/elsewhere"})
    process = Path("/proc", str(job.process))
    assert "Umask:\t0027" in (process / "status").read_text()
    assert (process / "cwd").readlink() == shared.place
    assert os.getsid(job.process) == job.process
    files = sorted(files_of(process))
    client = [str(Path(f"/proc/{job.client.pid}/fd/{number}").readlink()) for number in range(3)]
    assert files == sorted([*client, str(job.pipe)])
    job.finish("[]")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_that_ends_the_command_ends_the_job(shared: Run, number: int) -> None:
    job = Endless(shared)
    job.client.send_signal(number)
    assert job.client.wait(PATIENCE) == -number
    assert gone(job.process)


def test_an_interrupt_is_told_as_by_a_cold_job(shared: Run) -> None:
    ends = []
    for kind, environment in (("warm", {}), ("cold", COLD)):
        job = Endless(shared, kind, environment=environment)
        job.client.send_signal(signal.SIGINT)
        output, errors = job.client.communicate(timeout=PATIENCE)
        ends.append((job.client.returncode, output, errors))
    assert ends[0] == ends[1]
    assert "Traceback" not in ends[0][2]


def test_ignored_signals_stay_ignored(shared: Run) -> None:
    job = Endless(shared, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    os.kill(job.process, signal.SIGHUP)
    code, errors = job.finish("[]")
    assert code == 2, errors


def test_a_paused_job_pauses_its_process(shared: Run) -> None:
    def state(process: int) -> str:
        return words(Path("/proc", str(process)), "stat").rpartition(")")[2].split()[0]

    job = Endless(shared)
    job.client.send_signal(signal.SIGTSTP)
    # The client stops last: continued before, it would stop for ever.
    until(lambda: {state(job.process), state(job.client.pid)} == {"T"})
    job.client.send_signal(signal.SIGCONT)
    until(lambda: state(job.process) != "T")
    assert job.finish("[]")[0] == 2


def test_a_killed_job_leaves_no_process(shared: Run) -> None:
    job = Endless(shared)
    job.client.kill()
    until(lambda: gone(job.process))
    assert shared.job("schema")[0] == 0
    assert len(shared.servers()) == 1


def test_a_killed_server_is_reported_and_replaced(run: Run) -> None:
    job = Endless(run)
    [server] = run.servers()
    os.kill(server, signal.SIGKILL)
    _, errors = job.client.communicate(timeout=PATIENCE)
    assert job.client.returncode == 75
    assert errors == "error: the process that served this job has ended: run it again\n"
    until(lambda: gone(job.process))
    assert run.job("schema")[::2] == (0, "")
    assert run.servers() not in ([], [server])


@pytest.mark.parametrize("end", ["killed", "closed"])
def test_nothing_survives_the_run(run: Run, end: str) -> None:
    job = Endless(run)
    [server] = run.servers()
    if end == "killed":
        run.snakemake.kill()
    else:
        run.snakemake.stdin.close()  # type: ignore[union-attr]
    assert job.client.wait(PATIENCE) == 75
    until(lambda: gone(job.process) and gone(server))
    assert not run.folder.exists()


def test_two_runs_share_nothing(shared: Run, run: Run) -> None:
    assert shared.folder != run.folder
    for each in (shared, run):
        assert each.job("schema")[0] == 0
    assert shared.servers() != run.servers()


def test_other_surroundings_other_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python, environment, folder and code decide, but not what differs between jobs of a run."""
    monkeypatch.setattr(folder, "PACKAGES", (str(tmp_path),))
    code = tmp_path / "code.py"
    code.write_text("pass\n")
    first = folder.name_of_server()
    monkeypatch.setenv("PWD", "/elsewhere")
    monkeypatch.setenv("SHLVL", "9")
    assert folder.name_of_server() == first
    names = {first}
    code.write_text("pass  # edited\n")
    names.add(folder.name_of_server())
    monkeypatch.setenv("LD_PRELOAD", "")
    names.add(folder.name_of_server())
    monkeypatch.chdir(tmp_path)
    names.add(folder.name_of_server())
    monkeypatch.setattr(sys, "executable", "/another/python")
    names.add(folder.name_of_server())
    assert len(names) == 5


def test_modules_of_commands_exist() -> None:
    names = {name for command in modules.COMMANDS for name in modules.modules_of([command])}
    assert not [name for name in names if find_spec(name) is None]


def test_rewards_of_the_embedded_worlds_import_nothing_more() -> None:
    """A job that scores would pay for it each time; diffusers alone takes seconds."""
    script = """
import sys
from pathlib import Path
from bpgo.run.warm import modules
for module in modules.modules_of(["score"]):
    modules.load(module, ())
before = set(sys.modules)
assert "diffusers" not in before
from bpgo.config.resolve import load
from bpgo.rewards import load_reward
for file in ("config.yaml", "scenes_t2v.yaml", "scenes_i2v.yaml"):
    for entry in load(Path("config", file)).rewards.values():
        load_reward(entry)
ours = {name for name in set(sys.modules) - before if not name.startswith("encodings")}
assert not ours, sorted(ours)[:10]
"""
    found = subprocess.run([sys.executable, "-c", script], cwd=repository_root(), check=False)
    assert found.returncode == 0


@pytest.mark.slow
def test_imports_leave_one_thread() -> None:
    """A thread would be missing in a forked process."""
    script = """
import os
from bpgo.run.warm import modules, server
os.environ.update(server.ONE_THREAD)
for command in modules.COMMANDS:
    for module in modules.modules_of([command]):
        modules.load(module, ("flux", "wan"))
        assert len(os.listdir("/proc/self/task")) == 1, module
"""
    found = subprocess.run([sys.executable, "-c", script], cwd=repository_root(), check=False)
    assert found.returncode == 0


def test_what_a_warm_job_took_is_its_own(shared: Run) -> None:
    """Not the imports that its server has made, nor the memory that it shares."""
    path, words = shared.place / "usage.tsv", ["python", "-m", "bpgo", "prompts"]
    words += ["--config", "config.yaml", "--split", "train", "--output", "out.jsonl"]
    taken = {}
    for kind, environment in (("cold", COLD), ("warm", {})):
        shared.job("schema")
        job = shared.start("--benchmark", str(path), *words, environment=environment)
        assert job.communicate(timeout=PATIENCE) == ("", "")
        head, row = [line.split("\t") for line in path.read_text().splitlines()]
        taken[kind] = dict(zip(head, row, strict=True))
    for column in ("s", "cpu_time", "max_rss"):
        assert float(taken["warm"][column]) > 0
    assert float(taken["warm"]["cpu_time"]) < float(taken["cold"]["cpu_time"])
