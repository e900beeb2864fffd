"""Let a run's checkpoint respond to the queries of a dataset."""

from argparse import Namespace
from pathlib import Path

import polars as pl
import torch

from swift_study import cli
from swift_study.config import Lora, Model, Selection
from swift_study.datasets import model_folder
from swift_study.models import add_lora, load_adapter, load_model, load_tokenizer, quiet_libraries
from swift_study.responses import respond
from swift_study.tables import RESPONSES, read_examples, write_table


def main(a: Namespace) -> None:
    quiet_libraries()
    torch.set_num_threads(a.threads)
    model_settings, selection = Model.model_validate_json(a.model_settings), Selection.model_validate_json(a.settings)
    folder = model_folder(Path(a.model))
    model = add_lora(load_model(folder, model_settings), Lora.model_validate_json(a.lora), 0)
    load_adapter(model, Path(a.checkpoint))
    examples = read_examples(Path(a.dataset))
    label = f"respond to {Path(a.dataset).stem}"
    progress = cli.Progress(label)
    tokenizer = load_tokenizer(folder, model_settings)
    responses = respond(
        model.eval(), tokenizer, examples, selection.max_new_tokens, selection.batch_size,
        lambda done: progress(f"{done} of {len(examples)}"),
    )  # fmt: skip
    write_table(Path(a.output), pl.DataFrame([vars(r) for r in responses], schema_overrides={"seed": pl.Int64}), RESPONSES)
    cut = sum(r.finish_reason == "length" for r in responses)
    cli.say(f"{label}: {len(responses)} responses, {cut} of them cut at {selection.max_new_tokens} tokens")


if __name__ == "__main__":
    p = cli.parser(
        __doc__,
        settings="the section `selection` as JSON",
        model="model.json",
        model_settings="the section `model` as JSON",
        lora="the run's adapter settings as JSON",
        checkpoint="the checkpoint's folder",
        dataset="Parquet file of the queries",
        output="Parquet file",
    )
    p.add_argument("--threads", type=int, default=1, help="CPU threads")
    cli.run(main, p)
