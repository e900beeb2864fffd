"""`snakemake --profile slurm` on a real Slurm cluster: slurmctld and four slurmd on this machine, with devices that stand in for GPUs.

Two nodes are for the partitions `cpu` and `gpu`, two for what fails: jobs in `spare` are preempted by those in `urgent`.
Memory is enforced: what a job uses more than it asked for is its end.

Not root or no apt: skipped with the reason, except in continuous integration, where that is a failure.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from checkout import BIN, Checkout, environment, jobs_in, make_checkout
from tiny import ROOT

from swift_study.io.work import hash_files
from swift_study.models.checkpoints import last_checkpoint

CANARY = f"sk-canary-{secrets.token_hex(8)}"
GPU_RULES = ("train", "gradients", "respond", "score_with_model", "compute_baselines")
# With a judge that is a server, and the network at the submit host.
ASKING = ("score_with_endpoint", "audit_scorer_with_endpoint")
AT_SUBMIT_HOST = ("all", "swift_study_training", "write_config", "write_manifest", "list_costs", "find_model", "load_dataset", *ASKING)
# One of the three studies has every rule.
WIDE = {
    "runs": {"full_base": {"processes": 4, "nodes": 2, "micro_batch_size": 1, "zero_stage": 2}},
    "studies": {"cot": None, "evaluate": None},
}
LONG = {"runs": {"full_base": {"epochs": 40, "resume_every": 1000}}}
QUIET = ("OMP_WAIT_POLICY", "PASSIVE")  # more threads than cores: let them sleep
SPARE = "--set-resources=train:slurm_partition=spare"
GRADIENTS = "gradients/base/clarify"
LAST = "runs/full_base/seed=17/model=main/checkpoints"


@dataclass(frozen=True)
class SlurmJob:
    state: str
    partition: str
    nodes: int
    gpus: str
    node: str = ""
    restarts: int = 0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running cluster. Its path is short, since a socket lies in it."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        reason = "Slurm's daemons are installed by apt and run as root; neither is to be had here"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path("/tmp") / f"swift-study-slurm-{os.getpid()}"
    scripts = ROOT / "tests/slurm"
    where = os.environ | {"SLURM_LAB_DIR": str(folder)}
    # More memory than there is, so that every job may ask for plenty.
    shape = ["--nodes", "2", "--spare", "2", "--gpus", "2", "--mem", "64000", "--enforce-mem"]
    up = subprocess.run([str(scripts / "up.sh"), *shape], env=where, capture_output=True, text=True, check=False)
    if up.returncode:
        pytest.fail(up.stdout + up.stderr)
    yield folder
    subprocess.run([str(scripts / "down.sh"), "--purge"], env=where, capture_output=True, check=True)


@pytest.fixture(scope="module")
def site(cluster: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout whose profile is adapted to the little cluster, as docs/cluster.md says: partitions, memory and times in one file."""
    checkout = make_checkout(tmp_path_factory.mktemp("slurm") / "swift-study", tiny_model)
    path = checkout.root / "profiles/slurm/config.yaml"
    profile = yaml.safe_load(path.read_text())
    del profile["default-resources"]["slurm_account"]
    profile["default-resources"] |= {"mem_mb": "6000 if threads > 1 else 3000", "runtime": 10}
    profile["set-resources"] = {"make_schedule": {"mem_mb": 1000}, "check_leakage": {"mem_mb": 1000}}
    profile["cores"] = 2
    profile |= {"slurm-init-seconds-before-status-checks": 7, "latency-wait": 5}
    path.write_text(yaml.safe_dump(profile))
    return checkout


@pytest.fixture(scope="module")
def straight(site: Checkout) -> str:
    """The weights of a training that nothing ever stopped."""
    config = write(site, "straight", LONG | {"results": "results-straight"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*QUIET)
        done = site.snakemake("--set-threads=train=2", f"results-straight/{LAST}", configs=(config,))
    assert "resuming" not in done.stdout
    return weights(site, "results-straight")


@pytest.fixture(scope="module")
def whole(site: Checkout, cluster: Path) -> Iterator[subprocess.Popen[str]]:
    """A tiny swift study with a training on two nodes, started; other tests run beside it."""
    run = start(site, "results", WIDE, "all", f"results/{LAST}")
    yield run
    if run.poll() is None:
        run.send_signal(signal.SIGKILL)


def copy_data(site: Checkout, source: str, target: str, *without: str) -> None:
    """Take over what another study has made, so that only what is left out (gradients, or runs) is to be computed."""
    ignored = shutil.ignore_patterns("work", "logs", "benchmarks", "*.part", *without)
    shutil.copytree(site.root / source, site.root / target, ignore=ignored)


def start_training(site: Checkout, results: str, settings: dict[str, object], *arguments: str) -> subprocess.Popen[str]:
    """On the data of the training that was never stopped."""
    copy_data(site, "results-straight", results, "runs")
    return start(site, results, settings, *arguments, f"{results}/{LAST}")


def start(site: Checkout, results: str, settings: dict[str, object], *arguments: str) -> subprocess.Popen[str]:
    """Start `snakemake --profile slurm`, as a user types it, for a study of its own in the folder ``results``."""
    config = site.root / f"{results}.yaml"
    config.write_text(yaml.safe_dump(settings | {"results": results}))
    command = [str(BIN / "snakemake"), "--profile", "slurm", *arguments]
    command += ["--configfile", "tests/workflow/tiny.yaml", str(site.tiny), str(config)]
    keys = {"OPENAI_API_KEY": CANARY, "HF_TOKEN": CANARY, "SWIFT_STUDY_STAND_IN_GPUS": "1"}
    keys |= dict([QUIET])
    with output_of(site, results).open("a") as out:
        return subprocess.Popen(command, cwd=site.root, stdout=out, stderr=subprocess.STDOUT, text=True, env=environment() | keys)


def output_of(site: Checkout, results: str) -> Path:
    return site.root / f"{results}.txt"


def jobs_of(output: str) -> dict[str, int]:
    """Slurm's job ids in the order of submission, by what the log's path says: `train/base/12.log` is job 12."""
    found = re.findall(r"submitted with SLURM jobid (\d+) \(log: \S*slurm_logs/(\S+)/\d+\.log\)", output)
    return {f"{name} {job}": int(job) for job, name in found}


def look_up(job: int) -> SlurmJob:
    shown = subprocess.run(["scontrol", "show", "job", str(job), "-o"], capture_output=True, text=True, check=True).stdout
    fields = dict(re.findall(r"(\w+)=(\S*)", shown))
    gpus = fields.get("TresPerJob") or fields.get("TresPerNode") or ""
    node = fields.get("NodeList", "")
    return SlurmJob(fields["JobState"], fields["Partition"], int(fields["NumNodes"].split("-")[0]), gpus, node, int(fields["Restarts"]))


def wait_until(condition: Callable[[], bool], run: subprocess.Popen[str], output: Path, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert run.poll() is None, output.read_text()[-6000:]
        assert time.monotonic() < deadline, output.read_text()[-6000:]
        time.sleep(0.01)


def workers(site: Checkout, results: str) -> list[int]:
    """Processes that compute for this study: neither their launchers nor the Snakemake that started those."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, folder = (process / "cmdline").read_text().split("\0"), (process / "cwd").resolve()
        except OSError:
            continue
        ours = folder == site.root.resolve() and any(word.startswith(f"{results}/work/") for word in words)
        if ours and {"workflow/scripts/train.py", "workflow/scripts/compute_gradients.py"} & set(words[1:3]):
            found.append(int(process.name))
    return found


def steps_done(site: Checkout, results: str) -> int:
    histories = list(site.root.glob(f"{results}/work/train/full_base/seed=17/model=main/*/history.jsonl"))
    return len(histories[0].read_text().splitlines()) if histories else 0


def hold(site: Checkout, results: str) -> None:
    for process in workers(site, results):
        os.kill(process, signal.SIGSTOP)


def train_until_first_step(site: Checkout, results: str, *arguments: str) -> tuple[subprocess.Popen[str], int]:
    """Start a training and hold it after a step or more. Gives the run and the Slurm job's id."""
    run = start_training(site, results, LONG, *arguments)
    output = output_of(site, results)
    wait_until(lambda: steps_done(site, results) > 0, run, output)
    hold(site, results)
    return run, trainings_of(site, results)[-1]


def trainings_of(site: Checkout, results: str) -> list[int]:
    return [job for name, job in jobs_of(output_of(site, results).read_text()).items() if name.startswith("rule_train")]


def log_of(site: Checkout, job: int) -> str:
    return next((site.root / ".snakemake/slurm_logs").rglob(f"{job}.log")).read_text()


def end_in_300_seconds(job: int) -> None:
    """So soon before a limit Slurm asks for a stop: at its next look, every 30 seconds."""
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 300))
    subprocess.run(["scontrol", "update", f"JobId={job}", f"EndTime={end}"], check=True)


def let_go_on(site: Checkout, results: str) -> None:
    for process in workers(site, results):
        os.kill(process, signal.SIGCONT)


def end_of(checkpoints: Path) -> Path:
    found = last_checkpoint(checkpoints)
    assert found is not None
    return found


def weights(site: Checkout, results: str) -> str:
    return hash_files(end_of(site.root / results / LAST) / "model.safetensors")


def test_a_job_at_its_time_limit_stops_cleanly_and_another_try_ends_in_the_same_weights(
    site: Checkout, whole: subprocess.Popen[str], cluster: Path, straight: str
) -> None:
    """Beside another study in the same checkout."""
    run, job = train_until_first_step(site, "results-limit")
    output = output_of(site, "results-limit")
    assert not found_canary(site, cluster)  # while jobs run, Slurm holds their environments
    end_in_300_seconds(job)
    stop = site.root / "results-limit/work/train/full_base/seed=17/model=main.stop"
    wait_until(stop.exists, run, output, seconds=100)
    let_go_on(site, "results-limit")
    assert run.wait(timeout=900) == 0, output.read_text()[-6000:]
    assert re.search(r"STOPPED train: Stopped on request after step \d+ of 160; its state is saved", log_of(site, job)), log_of(site, job)
    tries = trainings_of(site, "results-limit")
    assert [look_up(j).state for j in tries] == ["FAILED", "COMPLETED"]
    assert "resuming after step" in log_of(site, tries[1])
    assert weights(site, "results-limit") == straight


def test_a_preempted_training_and_one_whose_node_fails_go_on_and_end_in_the_same_weights(
    site: Checkout, whole: subprocess.Popen[str], straight: str
) -> None:
    """First a more urgent job takes its node: it saves its state in the grace time, and Snakemake tries again on another node. Then that
    node fails: Slurm puts the job back into the queue by itself."""
    run, first = train_until_first_step(site, "results-spare", SPARE)
    output = output_of(site, "results-spare")
    work = site.root / "results-spare/work/train/full_base/seed=17/model=main"
    taken = look_up(first).node
    more_urgent = ["sbatch", "--parsable", "-p", "urgent", "-w", taken, "--exclusive", "-o", "/dev/null", "--wrap", "sleep 600"]
    urgent = int(subprocess.run(more_urgent, capture_output=True, text=True, check=True).stdout)
    wait_until(work.with_name("model=main.stop").exists, run, output)
    assert look_up(first).state in ("RUNNING", "SIGNALING")  # not at an end: it was asked to stop
    let_go_on(site, "results-spare")
    wait_until(lambda: look_up(urgent).state == "RUNNING", run, output)
    assert look_up(first).state == "FAILED"
    stopped = re.search(r"STOPPED train: Stopped on request after step (\d+) of 160; its state is saved", log_of(site, first))
    assert stopped, log_of(site, first)

    wait_until(lambda: steps_done(site, "results-spare") > int(stopped[1]), run, output)
    hold(site, "results-spare")
    second = trainings_of(site, "results-spare")[-1]
    assert second != first
    node = look_up(second).node
    assert node != taken
    subprocess.run(["scancel", str(urgent)], check=True)
    subprocess.run(["scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test"], check=True)
    kill_all_of(second)
    assert run.wait(timeout=300) == 0, output.read_text()[-6000:]
    assert trainings_of(site, "results-spare") == [first, second]
    assert (look_up(second).state, look_up(second).restarts) == ("COMPLETED", 1)
    # A node that is gone cannot always write that it failed; the next start stands in the same log.
    first_step, second_step = (int(step) for step in re.findall(r"resuming after step (\d+) of 160", log_of(site, second)))
    assert first_step == int(stopped[1])
    assert second_step >= first_step  # Slurm may have asked for a stop before the node's processes were gone
    assert weights(site, "results-spare") == straight


def test_a_job_that_takes_more_memory_than_it_asked_for_is_told_apart(site: Checkout, whole: subprocess.Popen[str], straight: str) -> None:
    run = start_training(site, "results-memory", LONG, "--retries", "0", "--set-resources=train:mem_mb=400")
    assert run.wait(timeout=240) == 1
    said = output_of(site, "results-memory").read_text()
    (job,) = trainings_of(site, "results-memory")
    assert f"SLURM-job '{job}' failed, SLURM status is: 'FAILED'" in said, said[-6000:]
    assert re.search(rf"StepId={job}.0 exceeded memory limit .*, being killed", log_of(site, job)), log_of(site, job)
    assert "exceeded memory limit" in said  # the log, shown at once
    assert f"slurm_logs/rule_train/full_base_seed=17_model=main/{job}.log" in said


def test_a_cancelled_and_a_failing_job_are_told_apart(site: Checkout, whole: subprocess.Popen[str], straight: str) -> None:
    broken = start_training(site, "results-broken", {"runs": {"full_base": {"learning_rate": 1e30}}}, "--retries", "0")
    run, job = train_until_first_step(site, "results-cancelled", "--retries", "0")
    subprocess.run(["scancel", str(job)], check=True)
    let_go_on(site, "results-cancelled")
    assert run.wait(timeout=120) == 1
    said = output_of(site, "results-cancelled").read_text()
    assert look_up(job).state == "CANCELLED"
    assert f"SLURM-job '{job}' failed, SLURM status is: 'CANCELLED'" in said, said[-6000:]

    assert broken.wait(timeout=240) == 1
    said = output_of(site, "results-broken").read_text()
    assert "SLURM status is: 'FAILED'" in said
    assert re.search(r"ERROR in train: At step \d+ the loss is \S+ and the gradient norm \S+: training has diverged", said)
    assert "results-broken/logs/train/full_base/seed=17/model=main.log" in said
    assert not (site.root / "results-broken" / LAST).exists()


def test_gradients_at_a_time_limit_keep_finished_checkpoints(site: Checkout, whole: subprocess.Popen[str], straight: str) -> None:
    """Those of the whole study, which nothing stopped, are the same."""
    ours, theirs = site.root / "results-gradients" / GRADIENTS, site.root / "results" / GRADIENTS
    wait_until((theirs / "certificate.json").exists, whole, output_of(site, "results"), seconds=600)
    copy_data(site, "results", "results-gradients", "gradients")
    run = start(site, "results-gradients", WIDE, f"results-gradients/{GRADIENTS}")
    output = output_of(site, "results-gradients")
    work = site.root / "results-gradients/work" / GRADIENTS
    wait_until(lambda: any(work.glob("*/*.done")), run, output)
    hold(site, "results-gradients")
    steps = [f.stem for f in work.glob("*/*.done")]
    finished = {f.name: f.stat().st_ino for step in steps for f in work.glob(f"*/step-{int(step):06d}.*")}
    assert len(finished) == 2 * len(steps)
    (first,) = jobs_of(output.read_text()).values()
    (process,) = workers(site, "results-gradients")
    end_in_300_seconds(first)
    wait_until(lambda: was_sent_sigterm(process), run, output, seconds=100)
    let_go_on(site, "results-gradients")
    assert run.wait(timeout=300) == 0, output.read_text()[-6000:]
    assert "STOPPED compute_gradients: SIGTERM came (a time limit, preemption" in log_of(site, first), log_of(site, first)
    assert [look_up(job).state for job in jobs_of(output.read_text()).values()] == ["FAILED", "COMPLETED"]
    files = {f.name for f in theirs.glob("step-*.parquet")}
    assert 0 < len(finished) < len(files) == 4 * 2  # of each checkpoint the gradients, and each weight's own inner products
    for name in files:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    for name, inode in finished.items():
        assert (ours / name).stat().st_ino == inode, f"{name} was computed again"


def test_a_whole_swift_study_and_a_training_on_two_nodes(site: Checkout, whole: subprocess.Popen[str], cluster: Path) -> None:
    assert whole.wait(timeout=600) == 0, output_of(site, "results").read_text()[-6000:]
    said = output_of(site, "results").read_text()
    assert (site.root / "results/report.html").is_file()
    jobs = {name: look_up(job) for name, job in jobs_of(said).items()}
    assert len(jobs) > 25
    for name, job in jobs.items():
        assert job.state == "COMPLETED", name
        if name.startswith(tuple(f"rule_{rule}" for rule in GPU_RULES)):
            expected = ("gpu", 2, "gres:gpu:2") if "full_base" in name else ("gpu", 1, "gres:gpu:1")
            assert (job.partition, job.nodes, job.gpus) == expected, name
        else:
            assert (job.partition, job.nodes, job.gpus) == ("cpu", 1, ""), name
    assert sum("make_schedule" in name for name in jobs) == 1  # two schedules in one job
    assert len([j for j in jobs_in(said) if j.startswith(("load_dataset", "find_model"))]) == 8
    assert not any("load_dataset" in name or "find_model" in name for name in jobs)  # where the network is
    assert '"world_size": 4' in (end_of(site.root / "results" / LAST) / "run.json").read_text()
    assert "GPUs are only stood in for" in (site.root / "results/logs/train/base.log").read_text()
    assert not found_canary(site, cluster)


def test_after_editing_a_strategy_only_what_descends_from_it_is_submitted(site: Checkout, whole: subprocess.Popen[str]) -> None:
    whole.wait(timeout=600)
    site.edit("strategies/clarify.py", '"""', '"""Edited. ')
    listed = site.jobs("-n", configs=(str(site.root / "results.yaml"),))
    assert "apply_strategy candidates.clarify" in listed
    assert "apply_strategy candidates.similar" not in listed
    assert not [j for j in listed if j.startswith(("train", "load_dataset"))]
    output_of(site, "results").write_text("")
    assert start(site, "results", WIDE, "results/data/candidates.clarify.parquet").wait(timeout=120) == 0
    assert [name.split()[0] for name in jobs_of(output_of(site, "results").read_text())] == ["rule_apply_strategy/candidates_clarify"]


def test_gpus_that_were_not_given_are_missed_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from swift_study.errors import UserError
    from swift_study.models.gpus import check_gpus

    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    check_gpus(2)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(UserError, match="needs 2 GPUs on each of its nodes, but was given 0 "):
        check_gpus(2)
    with pytest.raises(UserError, match=r"was given 1 GPUs, but PyTorch .* can use 0"):
        check_gpus(1)
    monkeypatch.setenv("SWIFT_STUDY_STAND_IN_GPUS", "1")
    check_gpus(1)


@pytest.mark.parametrize("stand_in", ["", "1"])
def test_a_job_that_asked_for_no_gpus_computes_on_the_cpu_whatever_it_sees(monkeypatch: pytest.MonkeyPatch, stand_in: str) -> None:
    """On clusters that do not confine devices it sees those of others. DeepSpeed too takes the CPU then."""
    from swift_study.models.gpus import check_gpus

    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("SWIFT_STUDY_STAND_IN_GPUS", stand_in)
    check_gpus(0)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_a_run_on_several_nodes_outside_slurm_says_so(tmp_path: Path) -> None:
    command = ["--stop", str(tmp_path / "stop"), "--nodes", "2", "--processes", "2", "--threads", "1", "--", "train.py"]
    without = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    done = subprocess.run([str(ROOT / "workflow/scripts/launch.sh"), *command], env=without, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "a run on 2 nodes is a Slurm job: use --profile slurm" in done.stderr


def test_paper_scale_does_not_flood_the_scheduler() -> None:
    """7B and 13B, each with all studies and their validation. docs/cluster.md states these numbers."""
    for scale in ("7b", "13b"):
        command = [
            str(BIN / "snakemake"),
            "--profile",
            "slurm",
            "-n",
            "all",
            "swift_study_training",
            "--configfile",
            f"scales/{scale}.yaml",
        ]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment()).stdout
        total = int(re.findall(r"^total +(\d+)", listed, re.MULTILINE)[0])
        alone = [rule for rule in re.findall(r"^rule (\w+):", listed, re.MULTILINE) if rule not in AT_SUBMIT_HOST]
        submitted = len(alone) + listed.count("Group job ")
        assert f"{total} jobs of Snakemake make {submitted} jobs of Slurm" in (ROOT / "docs/cluster.md").read_text()
        more = subprocess.run(
            [*command[:4], "balanced_evaluation", *command[6:]], cwd=ROOT, capture_output=True, text=True, check=True, env=environment()
        ).stdout
        assert "base.wrong.evaluate" in more


def test_studies_of_any_name_ask_for_gpus_where_these_are() -> None:
    command = [str(BIN / "snakemake"), "--profile", "slurm", "-n", "--forceall", "all", "future"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment()).stdout
    jobs = re.findall(r"^ *rule (\w+):\n(?: +.*\n)*? +resources: (.*)", listed, re.MULTILINE)
    asked = {rule: ("slurm_partition=gpu" in resources, bool(re.search(r"\bgpu=[1-9]|gres=gpu", resources))) for rule, resources in jobs}
    assert asked["gradients"] == asked["train"] == asked["respond"] == (True, True)
    assert asked["pair_influence"] == (False, False)
    assert all(partition == gpus for partition, gpus in asked.values())


def kill_all_of(job: int) -> None:
    """What still runs of a job is gone with its node."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"SLURM_JOB_ID={job}" in (process / "environ").read_text(errors="replace").split("\0"):
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue


def was_sent_sigterm(process: int) -> bool:
    """Whether a process that is held was; some versions of Slurm let it go on as well."""
    try:
        pending = re.findall(r"(?:ShdPnd|SigPnd):\s+(\w+)", Path(f"/proc/{process}/status").read_text())
    except FileNotFoundError:
        return True
    return any(int(signals, 16) >> (signal.SIGTERM - 1) & 1 for signals in pending)


def write(site: Checkout, name: str, settings: dict[str, object]) -> str:
    path = site.root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def found_canary(site: Checkout, cluster: Path) -> list[str]:
    """Files of the cluster (job scripts, environments, logs) and of the checkout, and command lines, that hold the key."""
    found = [str(f) for folder in (cluster, site.root) for f in folder.rglob("*") if f.is_file() and CANARY.encode() in f.read_bytes()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found += [str(process)] if CANARY in (process / "cmdline").read_text() else []
        except OSError:
            continue
    return found
