"""How alike a study's probes and targets are, by their words (BM25) and by their hidden states at the run's last checkpoint."""

from argparse import Namespace
from pathlib import Path

import polars as pl
import torch

from swift_study import cli
from swift_study.config import Comparison, Lora, Model
from swift_study.datasets import model_folder
from swift_study.gpus import check_gpus
from swift_study.models import load_checkpoint, load_tokenizer, quiet_libraries
from swift_study.rivals import Member, similarities
from swift_study.tables import SIMILARITIES, read_examples, write_table
from swift_study.tokens import tokenize


def main(a: Namespace) -> None:
    check_gpus(int(a.gpus))
    quiet_libraries()
    torch.set_num_threads(a.threads)
    comparison, lora, base = (
        Comparison.model_validate_json(a.settings),
        Lora.model_validate_json(a.lora),
        Model.model_validate_json(a.model_settings),
    )
    folder, checkpoint = model_folder(Path(a.model)), Path(a.checkpoint)
    tokenizer = load_tokenizer(folder, base)
    members = [
        Member(Path(path).stem, e, tokenize(e, tokenizer, base.max_length, base.overlong == "truncate"))
        for path in a.datasets
        for e in read_examples(Path(path))
    ]
    model = load_checkpoint(folder, base, checkpoint, lora)
    rows = similarities(model, members, comparison.grids(), tokenizer.pad_token_id, a.batch_size).with_columns(
        pl.lit(a.study).alias("study"),
        pl.lit(comparison.run).alias("run"),
        pl.lit(int(checkpoint.name.removeprefix("checkpoint-"))).alias("step"),
    )
    write_table(Path(a.output), rows, SIMILARITIES)


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        gpus="GPUs that each node of a Slurm job must have",
        study="its name",
        settings="the study's run, probes, targets and references as JSON",
        lora="the run's adapter as JSON",
        model="model.json",
        model_settings="the section `model` as JSON",
        checkpoint="folder of the run's last checkpoint",
        output="Parquet file",
    )
    p.add_argument("--datasets", nargs="+", required=True, help="Parquet files of the panel's datasets")
    p.add_argument("--batch-size", type=int, default=8, help="examples in one forward pass; the numbers do not depend on it")
    p.add_argument("--threads", type=int, default=1, help="CPU threads")
    cli.run(main, p)
