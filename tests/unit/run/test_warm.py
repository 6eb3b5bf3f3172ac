"""Jobs that a server forks are the jobs of a fresh process, and nothing of it outlives its run."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from bpgo.config import resolve as config
from bpgo.run.warm import call, folder, modules
from bpgo.storage.files import repository_root

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server needs Linux")
SNAKEMAKE = """
import os, sys
from bpgo.run.warm.folder import VARIABLE, close_folder, open_folder
open_folder([])
print(os.environ[VARIABLE], flush=True)
sys.stdin.read()
close_folder()
"""
NO_WARM_START = "no warm start, the job imports all by itself: "
JOB = ["python", "-S", "-m", "bpgo.run.job"]
PATIENCE = 60  # seconds; generous, for a machine with other work


class Run:
    """A process in Snakemake's place, and the jobs that it starts."""

    def __init__(self, place: Path, **environment: str) -> None:
        self.place = place
        self.environment = os.environ | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(repository_root()),
            **environment,
        }
        self.snakemake = subprocess.Popen(
            [sys.executable, "-c", SNAKEMAKE],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.snakemake.stdout is not None
        self.given = self.variable = self.snakemake.stdout.readline().strip()
        self.folder = Path(self.variable.split(":", 4)[4])

    def start(self, *command: str, **options: object) -> subprocess.Popen[str]:
        """A job whose output is read through a pipe."""
        environment = self.environment | {folder.VARIABLE: self.variable}
        environment = environment | options.pop("environment", {})  # type: ignore[operator]
        return subprocess.Popen(
            [*JOB, *command],
            cwd=self.place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,  # type: ignore[call-overload]
        )

    def job(self, *arguments: str, **options: object) -> tuple[int, str, str]:
        """`python -m bpgo ARGUMENTS` as a job: its exit code, output and errors."""
        job = self.start("python", "-m", "bpgo", *arguments, **options)
        output, errors = job.communicate(timeout=PATIENCE)
        return job.returncode, output, errors

    def servers(self) -> list[int]:
        """Processes of servers of this run, without those that they have forked."""
        return [
            int(process.name)
            for process in Path("/proc").glob("[0-9]*")
            if self.given in words(process, "environ")
            and "bpgo.run.warm.server" in words(process, "cmdline")
            and not words(process, "comm").startswith("bpgo ")
        ]

    def close(self) -> None:
        self.snakemake.kill()
        self.snakemake.wait()
        until(lambda: not self.servers())
        shutil.rmtree(self.folder, ignore_errors=True)


def words(process: Path, name: str) -> str:
    try:
        return (process / name).read_bytes().decode(errors="replace")
    except OSError:
        return ""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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


class Endless:
    """A job that reads its configuration from a pipe into which nobody writes."""

    def __init__(self, run: Run, name: str = "pipe", **options: object) -> None:
        self.pipe = run.place / name
        self.pipe.unlink(missing_ok=True)
        os.mkfifo(self.pipe)
        words = ["prompts", "--config", str(self.pipe), "--split", "train", "--output", "x"]
        self.client = run.start("python", "-m", "bpgo", *words, **options)
        # Opening it to write succeeds as soon as somebody reads.
        self.end = -1
        until(self._opened)
        until(self._readers)
        [self.process] = self._readers()

    def _opened(self) -> bool:
        assert self.client.poll() is None, self.client.communicate()
        try:
            self.end = os.open(self.pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        return True

    def _readers(self) -> list[int]:
        return [
            int(process.name)
            for process in Path("/proc").glob("[0-9]*")
            if int(process.name) != os.getpid() and str(self.pipe) in files_of(process)
        ]

    def finish(self, text: str = "") -> tuple[int, str]:
        """Write the configuration; the job's exit code and errors."""
        os.write(self.end, text.encode())
        os.close(self.end)
        _, errors = self.client.communicate(timeout=PATIENCE)
        return self.client.returncode, errors


def files_of(process: Path) -> list[str]:
    try:
        return [str(file.readlink()) for file in (process / "fd").iterdir()]
    except OSError:
        return []


def gone(process: int) -> bool:
    return folder.start_of(process) is None


COLD = {folder.VARIABLE: ""}


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
    def state() -> str:
        return words(Path("/proc", str(job.process)), "stat").rpartition(")")[2].split()[0]

    job = Endless(shared)
    job.client.send_signal(signal.SIGTSTP)
    until(lambda: state() == "T")
    job.client.send_signal(signal.SIGCONT)
    until(lambda: state() != "T")
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


def spoil_missing(run: Run) -> None:
    shutil.rmtree(run.folder)


def spoil_open_to_all(run: Run) -> None:
    run.folder.chmod(0o755)


def spoil_of_another(run: Run) -> None:
    os.chown(run.folder, 65534, -1)


def spoil_not_writable(run: Run) -> None:
    """A folder in which nothing can be made, for root neither."""
    run.variable = run.variable.replace(str(run.folder), "/proc/self/task")


def spoil_variable(run: Run) -> None:
    run.variable = "on"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (spoil_missing, "No such file or directory"),
        (spoil_open_to_all, "is not this user's alone"),
        (spoil_not_writable, "is not this user's alone"),
        (spoil_variable, "BPGO_WARM is 'on'"),
        pytest.param(
            spoil_of_another,
            "is not this user's alone",
            marks=pytest.mark.skipif(os.getuid() != 0, reason="only root gives a folder away"),
        ),
    ],
)
def test_without_a_usable_folder_the_job_starts_by_itself(
    run: Run, spoil: Callable[[Run], None], why: str
) -> None:
    spoil(run)
    code, output, errors = run.job("schema")
    assert code == 0
    assert output.startswith("{")
    assert errors.startswith(NO_WARM_START)
    assert why in errors
    assert errors.count("\n") == 1
    assert not run.servers()


def test_a_full_or_read_only_folder_of_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/self/task")
    monkeypatch.delenv(folder.VARIABLE, raising=False)
    with pytest.raises(folder.ColdError, match="no folder for it can be made"):
        folder.open_folder([])
    assert folder.VARIABLE not in os.environ


def test_elsewhere_nothing_is_said(run: Run) -> None:
    """Outside a workflow, and on another machine of a cluster."""
    process, started, _, rest = run.variable.split(":", 3)
    for value in ("", f"{process}:{started}:another-host:{rest}"):
        code, _, errors = run.job("schema", environment={folder.VARIABLE: value})
        assert (code, errors) == (0, "")
    assert not run.servers()


def test_a_folder_with_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 40)
    long.mkdir()
    run = Run(tmp_path, TMPDIR=str(long))
    try:
        assert run.folder.is_relative_to(long)
        assert run.job("schema")[::2] == (0, "")
        assert run.servers()
    finally:
        run.close()


def test_a_server_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv(folder.VARIABLE, run.variable)
    monkeypatch.setattr(call, "PATIENCE", 0.2)
    workflow = folder.Workflow.of_this_job()
    assert workflow is not None
    address = f"/proc/self/fd/{workflow.enter()}/{folder.name_of_server()}"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(address)
        silent.listen()
        with pytest.raises(folder.ColdError, match="did not answer within"):
            call.WarmJob(["bpgo", "schema"], workflow)


def test_other_surroundings_other_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python, environment, folder and code decide; what differs between jobs of one run does not."""
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
