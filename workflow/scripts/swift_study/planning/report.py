"""The plan as a text: tables of jobs, GPU-hours, memory, disk and money for the jobs of a configuration."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from swift_study.config import MAIN, Asked, AuditStudy, Config, label_of
from swift_study.data.strategies import load_strategy, teacher_prompts
from swift_study.evaluation.audit import labelled_responses
from swift_study.evaluation.judging import read_instructions
from swift_study.evaluation.scorers import Item, ScorerFile, load_scorer
from swift_study.examples import Example
from swift_study.planning.costs import (
    BATCH,
    DATA_FILE,
    DATA_ROW,
    GB,
    REST,
    Job,
    Memory,
    Size,
    certificate_memory,
    checkpoint_bytes,
    cost,
    forward_flops,
    full_gradient_memory,
    generation_memory,
    gpu_hours,
    gradient_file_bytes,
    gradient_flops,
    gradient_memory,
    state_bytes,
    too_few,
    training_flops,
    training_memory,
    training_tokens,
    warning,
    what_to_change,
)
from swift_study.planning.data import PlannedData
from swift_study.report.pages import markdown

FEW_TOKENS = 1000  # a pass; an H100 does some 300 operations in the time in which it reads a byte, so fewer tokens leave it waiting


@dataclass
class Planned:
    """Rows of the tables, and the sentences below them."""

    trainings: list[dict[str, object]] = field(default_factory=list)
    parts: list[dict[str, object]] = field(default_factory=list)
    memory: list[dict[str, object]] = field(default_factory=list)
    disk: list[dict[str, object]] = field(default_factory=list)
    money: list[dict[str, object]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Planner:
    """Goes through the jobs, part by part. ``sizes`` are those of the models by name."""

    def __init__(self, config: Config, jobs: Sequence[Job], sizes: Mapping[str, Size], data: PlannedData) -> None:
        self.config, self.jobs, self.sizes, self.data = config, jobs, sizes, data
        self.out = Planned()

    def plan(self) -> Planned:
        self.trainings()
        self.gradients()
        self.baselines()
        self.responses()
        self.likelihoods()
        self.files()
        self.teacher()
        self.scorers()
        self.out.parts.append(_total(self.out.parts, "part"))
        self.out.disk.append(_total(self.out.disk, "files"))
        if self.out.money:
            self.out.money.append(_total(self.out.money, "who"))
        return self.out

    def label(self, run: str) -> str:
        """A run in the tables: its family with its levels, but for seed and model; and its model, where that is not the main one."""
        point = self.config.point(run)
        name = label_of(point.family, {f: level for f, level in point.levels.items() if f not in ("seed", "model")})
        return name if point.run.model == MAIN else f"{name} on {point.run.model}"

    # ---- the parts ----

    def trainings(self) -> None:
        names = [j.wildcards["run"] for j in self.jobs if j.rule in ("train", "train_for_now")]
        # Seeds differ in nothing that is planned.
        alike = Counter(map(self.label, names))
        first = {self.label(name): name for name in reversed(names)}
        tokens_of_all = hours_of_all = flops_of_all = completions_of_all = disk = 0.0
        checkpoints, states = 0, []
        order = {path: number for number, path in enumerate(self.config.by_path)}
        for label, times in sorted(alike.items(), key=lambda item: order[first[item[0]]]):
            name = first[label]
            run = self.config.run(name)
            size, dtype = self.sizes[run.model], run.dtype or self.config.model_of(name).dtype
            used = {d for phase in run.schedule for d in phase}
            lengths = {d: self.data.lengths(d) for d in used}
            both = {d: (len(ls), sum(x.both for x in ls) / len(ls)) for d, ls in lengths.items()}
            completion = {d: (len(ls), sum(x.completion for x in ls) / len(ls)) for d, ls in lengths.items()}
            tokens, completions = training_tokens(run, both), training_tokens(run, completion)
            flops = training_flops(run, size, tokens)
            hours = gpu_hours(flops, self.config.plan, dtype)
            longest = max(x.both for ls in lengths.values() for x in ls)
            a_pass = tokens / training_tokens(run, {d: (n, 1) for d, (n, _) in both.items()})
            memory = training_memory(run, size, dtype, longest)
            self.remember(f"training {label}", f"{run.method}, {dtype}, ZeRO {run.zero_stage}, {run.processes} GPU", memory, run.processes)
            self.warn(f"The training of {label!r}", memory, what_to_change(self.config.point(name).family, run, memory))
            for problem in too_few(run, both):
                self.out.warnings.append(f"WARNING: The run {label!r} cannot be made as configured: {problem}.")
            steps: list[int | None] = [*self.config.steps(name)] or [None]
            published = sum(checkpoint_bytes(run, size, dtype) for step in steps)
            disk += times * published
            checkpoints += times * len(steps)
            states.append(state_bytes(run, size, dtype))
            self.out.trainings.append(
                {
                    "run": label,
                    "trainings": times,
                    "method": run.method,
                    "tokens each": round(tokens),
                    "of completions": round(completions),
                    "tokens a pass": round(run.micro_batch_size * a_pass),
                    "GPU-hours each": hours,
                    "wall-clock hours each": hours / run.processes,
                    "GB of checkpoints each": published / GB,
                }
            )
            tokens_of_all += times * tokens
            completions_of_all += times * completions
            flops_of_all += times * flops
            hours_of_all += times * hours
        self.part("trainings", len(names), tokens_of_all, completions_of_all, flops_of_all, hours_of_all)
        if names:
            self.file("runs/: checkpoints", checkpoints, disk)
            self.file("work/: a training's state to resume from, at its peak", 1, max(states))

    def gradients(self) -> None:
        tokens = completions = flops = disk = 0.0
        files, model, plan = 0, self.config.model, self.config.plan
        studies = [j.wildcards["study"] for j in self.jobs if j.rule == "gradients"]
        for study in studies:
            s = self.config.influence[study]
            run, size = self.config.run(s.run), self.sizes[MAIN]
            steps = len(self.config.gradient_steps(s.run))
            lengths = [x for d in s.datasets() for x in self.data.lengths(d)]
            tokens += steps * sum(x.both for x in lengths)
            completions += steps * sum(x.completion for x in lengths)
            settings, full = self.config.gradients, self.config.gradients.scope == "full"
            flops += gradient_flops(run, size, steps * sum(x.both for x in lengths), settings.scope, len(lengths))
            trained = size.parameters if full else size.lora(run.lora)
            matrices = size.layers * (9 if full else 2 * len(run.lora.targets))  # with a Llama's seven matrices and two norms
            adam = run.export_second_moments and full == (run.method == "full")
            disk += steps * gradient_file_bytes(len(lengths), settings, trained, matrices, adam)
            files += 2 * steps
            longest = max(x.both for x in lengths)
            budget, batch = settings.memory_gb * 1e9, settings.batch_size
            if full:
                memory = full_gradient_memory(size, model.dtype, batch, longest, budget)
            else:
                memory = gradient_memory(run, size, model.dtype, batch, longest, len(lengths), budget)
            self.remember(f"gradients {study}", f"{len(lengths)} examples, {model.dtype}", memory)
            self.warn(f"The gradient job of {study!r}", memory, "Lower gradients.memory_gb, gradients.batch_size or lora.rank.")
            memory = certificate_memory(trained, size, longest, settings.certificate_examples)
            self.remember(f"certificate {study}", "the whole model in float64", memory)
            change = "It is made after a study's last gradients; lower gradients.certificate_examples, or use a GPU with more memory."
            self.warn(f"The numerics certificate of {study!r}", memory, change)
        self.part("gradients", len(studies), tokens, completions, flops, gpu_hours(flops, plan, model.dtype))
        if studies:
            self.file("gradients/", files, disk)

    def baselines(self) -> None:
        """At one checkpoint: hidden states of all, losses of the targets, and for each probe a gradient and the targets' losses again.

        References are probes whose hidden states alone are wanted.
        """
        tokens = completions = flops = 0.0
        studies = [j.wildcards["study"] for j in self.jobs if j.rule == "compute_baselines"]
        for study in studies:
            s, size = self.config.influence[study], self.sizes[MAIN]
            run = self.config.run(s.run)
            everything = [x for d in s.datasets() for x in self.data.lengths(d)]
            probes, targets = ([x for d in dict.fromkeys(side.values()) for x in self.data.lengths(d)] for side in (s.probes, s.targets))
            of_probes, of_targets = sum(x.both for x in probes), sum(x.both for x in targets)
            forward = sum(x.both for x in everything) + (len(probes) + 1) * of_targets
            tokens += forward + of_probes
            completions += sum(x.completion for x in probes) + (len(probes) + 1) * sum(x.completion for x in targets)
            flops += forward_flops(size, forward) + gradient_flops(run, size, of_probes)
            longest = max(x.both for x in everything)
            memory = gradient_memory(run, size, self.config.model.dtype, 1, longest, 2)  # gradient, and the weights as they were
            self.remember(f"baselines {study}", f"{len(probes)} probes, {len(targets)} targets", memory)
            self.warn(f"The job of the baselines of {study!r}", memory, "Shorten its longest examples, or lower lora.rank.")
        self.part("baselines", len(studies), tokens, completions, flops, gpu_hours(flops, self.config.plan, self.config.model.dtype))

    def asked(self, job: Job) -> Asked:
        return self.config.evaluation(job.wildcards["evaluation"], job.wildcards["run"])

    def response_tokens(self, asked: Asked) -> int:
        return max(1, round(self.config.plan.response_share * asked.generation.max_new_tokens))

    def responses(self) -> None:
        self.responses_of_endpoints()
        plan, jobs = self.config.plan, [j for j in self.jobs if j.rule == "respond"]
        tokens = completions = flops = hours = 0.0
        worst: tuple[str, Memory, int] | None = None
        for job in jobs:
            w, asked = job.wildcards, self.asked(job)
            lengths, size = self.data.lengths(asked.dataset), self.sizes[self.config.run(w["run"]).model]
            dtype, run, new = self.config.model_of(w["run"]).dtype, self.config.run(w["run"]), self.response_tokens(asked)
            shots = asked.shots * sum(x.both for x in lengths) / len(lengths)
            job_tokens = sum(x.prompt + shots + new for x in lengths)
            tokens += job_tokens
            completions += new * len(lengths)
            flops += forward_flops(size, job_tokens)
            hours += gpu_hours(forward_flops(size, job_tokens), plan, dtype, generating=True)
            adapter = size.lora(run.lora) if run.method == "lora" else 0
            longest = max(x.prompt for x in lengths) + round(shots) + asked.generation.max_new_tokens
            batch = asked.generation.batch_size
            memory = generation_memory(size, dtype, min(batch, len(lengths)), longest, adapter)
            if worst is None or memory.gpu > worst[1].gpu:
                worst = f"{w['run']} to {w['evaluation']}", memory, batch
        if jobs:
            self.part("responses", len(jobs), tokens, completions, flops, hours)
        if worst is not None:
            self.remember("responses, the largest", worst[0], worst[1])
            self.warn(f"The response of {worst[0]}", worst[1], f"Lower generation.batch_size (now {worst[2]}).")

    def responses_of_endpoints(self) -> None:
        found: dict[str, tuple[int, float, float]] = {}
        for job in (j for j in self.jobs if j.rule == "respond_with_endpoint"):
            asked, name = self.asked(job), self.config.responder(job.wildcards["evaluation"].split("/")[0])
            assert name is not None
            rows, prompt, completion = found.get(name, (0, 0.0, 0.0))
            lengths = self.data.lengths(asked.dataset)
            new = self.response_tokens(asked) * len(lengths)
            found[name] = rows + len(lengths), prompt + sum(x.prompt for x in lengths), completion + new
        for name, (rows, prompt, completion) in found.items():
            self.money(f"{name}: responses", rows, prompt, completion, self.config.endpoints[name])

    def likelihoods(self) -> None:
        jobs = [(j.wildcards, self.asked(j).dataset) for j in self.jobs if j.rule == "score_with_model"]
        tokens = completions = flops = hours = 0.0
        for w, dataset in jobs:
            lengths, size = self.data.lengths(dataset, golden=True), self.sizes[self.config.run(w["run"]).model]
            job_tokens = sum(x.both for x in lengths)
            tokens += job_tokens
            completions += sum(x.completion for x in lengths)
            flops += forward_flops(size, job_tokens)
            hours += gpu_hours(forward_flops(size, job_tokens), self.config.plan, self.config.model_of(w["run"]).dtype)
        self.part("likelihoods", len(jobs), tokens, completions, flops, hours)
        if jobs:
            size = max((self.sizes[self.config.run(w["run"]).model] for w, _ in jobs), key=lambda s: s.parameters)
            longest = max(x.both for _, dataset in jobs for x in self.data.lengths(dataset, golden=True))
            # As of responses, with logits of all tokens in place of the keys and values.
            memory = generation_memory(size, self.config.model.dtype, BATCH, longest, 0)
            logits = Memory(memory.weights, activations=memory.activations + 2 * BATCH * longest * size.vocabulary * 4)
            self.remember("likelihoods, the largest", f"{BATCH} answers at once", logits)
            self.warn("The job of the likelihoods", logits, "Lower model.max_length: it is the longest answer that takes the memory.")

    def files(self) -> None:
        made = [j for j in self.jobs if j.rule.startswith(("respond", "score")) or j.rule == "read_responses"]
        rows = sum(len(self.data.lengths(self.asked(j).dataset)) for j in made)
        self.file("responses/, scores/ (roughly)", len(made), rows * DATA_ROW + len(made) * DATA_FILE)
        data = [j.wildcards for j in self.jobs if j.rule == "apply_strategy"]
        names = [f"{w['parent']}.{w['strategy']}" for w in data]
        rows = sum(len(self.data.examples(n)) for n in [*names, "base"])
        self.file("data/ (roughly)", len(names) + 1, rows * 2 * DATA_ROW + (len(names) + 1) * DATA_FILE)
        self.file("figures, tables, pages, report, logs (roughly)", None, REST)

    def teacher(self) -> None:
        for w in (j.wildcards for j in self.jobs if j.rule == "apply_strategy"):
            settings = self.config.strategies[w["strategy"]]
            if settings.by != "teacher":
                continue
            strategy = load_strategy(self.data.strategies / f"{w['strategy']}.py")
            name = f"{w['parent']}.{w['strategy']}"
            _, prompts, _ = teacher_prompts(strategy, self.data.examples(w["parent"]), name)
            prompt = sum(map(self.data.text_tokens, prompts))
            completion = len(prompts) * self.config.plan.teacher_reply_tokens
            self.money(f"{settings.endpoint}: {name}", len(prompts), prompt, completion, self.config.endpoints[settings.endpoint])

    def scorers(self) -> None:
        """The endpoints that scorers ask, and their audits."""
        reply, response = self.config.plan.judge_reply_tokens, self.data.filler(self.data.response_tokens())
        asked = Counter((j.wildcards["scorer"], self.asked(j).dataset) for j in self.jobs if j.rule == "score_with_endpoint")
        audits = [j.wildcards for j in self.jobs if j.rule == "audit_scorer_with_endpoint"]
        for name in dict.fromkeys([*(scorer for scorer, _ in asked), *(w["scorer"] for w in audits)]):
            scorer, endpoint = load_scorer(self.config.scorer_file(name)), self.config.endpoints[self.config.scorer_endpoint(name) or ""]
            replies = prompt = 0
            for dataset, times in ((d, times) for (of, d), times in asked.items() if of == name):
                examples = self.data.examples(dataset)
                replies += times * len(examples)
                prompt += times * sum(self.prompt_tokens(name, scorer, e, response) for e in examples)
            if replies:
                self.money(name, replies, prompt, replies * reply, endpoint)
            for study in (self.config.studies[w["study"]] for w in audits if w["scorer"] == name):
                assert isinstance(study, AuditStudy)
                examples = self.data.examples(self.config.asked(study.evaluation, {}).dataset)
                rows = labelled_responses(study.settings, examples, self.config.statistics.seed)
                passes = [2 + (row.expected == 0) for row in rows]  # twice, and the wrong ones once more with a hostile text
                tokens = [self.prompt_tokens(name, scorer, row.example, row.response) for row in rows]
                prompt = sum(n * k for n, k in zip(passes, tokens, strict=True))
                self.money(f"audit of {name}", sum(passes), prompt, sum(passes) * reply, endpoint)

    def prompt_tokens(self, name: str, scorer: ScorerFile, example: Example, response: str) -> int:
        file = self.config.scorer_instructions(name)
        instructions = read_instructions(Path(file)) if file else ""
        return self.data.text_tokens(
            scorer.prompt(Item(example, response, options=self.config.scorer(name).options, instructions=instructions))
        )

    # ---- rows ----

    def part(self, name: str, jobs: int, tokens: float, completions: float, flops: float, hours: float) -> None:
        self.out.parts.append(
            {
                "part": name,
                "jobs": jobs,
                "tokens": round(tokens),
                "of completions": round(completions),
                "PFLOP": flops / 1e15,
                "GPU-hours": hours,
            }
        )

    def remember(self, what: str, how: str, memory: Memory, processes: int = 1) -> None:
        self.out.memory.append(
            {
                "what": what,
                "how": how,
                "weights": memory.weights / GB,
                "gradients": memory.gradients / GB,
                "optimizer": memory.optimizer / GB,
                "activations": memory.activations / GB,
                "GB a GPU": memory.gpu / GB + self.config.plan.overhead_gb,
                "GB of the host": memory.host / GB * processes,
            }
        )

    def warn(self, what: str, memory: Memory, change: str) -> None:
        if text := warning(what, memory, self.config.plan, change):
            self.out.warnings.append(text)

    def file(self, name: str, files: int | None, size: float) -> None:
        self.out.disk.append({"files": name, "number": files, "GB": size / GB})

    def money(self, who: str, replies: int, prompt: float, completion: float, price: object) -> None:
        usd = cost(prompt, completion, *(getattr(price, f"usd_per_million_{kind}_tokens") for kind in ("prompt", "completion")))
        self.out.money.append({"who": who, "replies": replies, "prompt tokens": prompt, "completion tokens": completion, "USD": usd})


def _total(rows: Sequence[Mapping[str, object]], name: str) -> dict[str, object]:
    numbers = {key: sum(v for row in rows if isinstance(v := row[key], int | float)) for key in rows[0] if key != name}
    return {name: "in total", **numbers}


def text(config: Config, jobs: Sequence[Job], sizes: Mapping[str, Size], planned: Planned, notes: Sequence[str]) -> str:
    """The plan in Markdown."""
    p = config.plan
    counted = sorted(Counter(j.rule for j in jobs).items())
    size = sizes[MAIN]
    parts = [
        "# Plan",
        f"What `snakemake {' '.join(p.targets)}` would cost from nothing. Estimates, not measurements; docs/plan.md tells "
        "what each assumes.",
        f"Model {config.model.name}: {size.parameters:,.0f} weights, {size.layers} layers of width {size.hidden_size}, "
        f"{size.vocabulary:,} tokens.",
        f"Assumed of a GPU (section `plan`): {p.gpu_memory_gb:g} GB; {p.teraflops:g} TFLOP/s in bfloat16 and {p.teraflops_float32:g} in "
        f"float32, of which training, gradients and likelihoods reach {p.utilisation:g}, responses {p.generation_utilisation:g}.",
        "## Jobs",
        _table([{"rule": r, "jobs": n} for r, n in counted] + [{"rule": "in total", "jobs": len(jobs)}]),
        "## GPU-hours",
        "Tokens are of prompts and completions together, without padding; beside them those of completions alone.",
        _table(planned.parts),
        f"The hours are a lower bound where a pass has few tokens (below some {FEW_TOKENS}): then a GPU waits for its memory and for the "
        f"others, and does not reach {p.utilisation:g} of its peak. "
        f"{sum(_few(row) for row in planned.trainings)} of the {len(planned.trainings)} kinds of training below are such.",
        "## Trainings",
        _table(planned.trainings),
        "## Memory at the peak",
        f"In GB of 10^9 bytes, one process a GPU; with {p.overhead_gb:g} GB beside what the columns add up to.",
        _table(planned.memory),
        "## Disk",
        _table(planned.disk),
        "## Endpoints",
        _table(planned.money) if planned.money else "None is configured: nothing to pay.",
        "## Assumed where nothing is known yet",
        "\n".join(f"- {note}" for note in notes) if notes else "Nothing beside the constants.",
        "## Does it fit?",
        "\n\n".join(planned.warnings) if planned.warnings else f"All jobs fit a GPU of {p.gpu_memory_gb:g} GB by these estimates.",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _few(row: Mapping[str, object]) -> bool:
    tokens = row["tokens a pass"]
    return isinstance(tokens, int) and tokens < FEW_TOKENS


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    return markdown(pl.DataFrame(list(rows), infer_schema_length=None)) if rows else "None."
