"""The baselines of RelInf against steps and means computed by hand, on a tiny random model with an adapter."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from made_examples import example

from swift_study.config import Gradients, Lora, Model
from swift_study.gradients.engine import PanelGradients, gradient_table, panel_gradients
from swift_study.gradients.panel import Member
from swift_study.influence.baselines import STEP, baselines_at_checkpoint, bm25, cosines, embeddings, losses_after, mean_losses
from swift_study.influence.pairs import pairs_at_checkpoint, read_gradients
from swift_study.io.tables import BASELINES, PAIRS, read_table, write_arrow, write_table
from swift_study.models.loading import add_lora, load_model
from swift_study.models.rendering import load_renderer
from swift_study.models.tokens import Tokens

PAD = 2
LENGTHS = [(6, 3), (4, 8), (3, 2), (9, 11), (2, 1), (12, 5)]


@pytest.fixture
def model(tiny_model: Path) -> torch.nn.Module:
    """In float64, with B other than zero."""
    model = add_lora(load_model(tiny_model, Model()), Lora(rank=4, alpha=8), seed=1).double().eval()
    torch.manual_seed(2)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


def some_tokens() -> list[Tokens]:
    rng = np.random.default_rng(0)
    return [Tokens(rng.integers(3, 49000, a + b).tolist(), a) for a, b in LENGTHS]


def plain_mean_loss(model: torch.nn.Module, tokens: Tokens) -> torch.Tensor:
    log_p = torch.log_softmax(model(input_ids=torch.tensor([tokens.ids])).logits[0], dim=1)
    n = len(tokens.ids)
    return -log_p[torch.arange(tokens.prompt_length - 1, n - 1), torch.tensor(tokens.ids[tokens.prompt_length :])].mean()


def flat_gradient(model: torch.nn.Module, tokens: Tokens) -> torch.Tensor:
    weights = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(plain_mean_loss(model, tokens), weights)])


def test_mean_losses_and_embeddings_are_those_of_plain_forward_passes(model: torch.nn.Module) -> None:
    tokens = some_tokens()
    with torch.no_grad():
        losses = [float(plain_mean_loss(model, t)) for t in tokens]
        hidden = [model(input_ids=torch.tensor([t.ids]), output_hidden_states=True).hidden_states[-1][0].mean(dim=0) for t in tokens]
    assert mean_losses(model, tokens, PAD, 4) == pytest.approx(losses, rel=1e-6)
    assert embeddings(model, tokens, PAD, 4) == pytest.approx(torch.stack(hidden).numpy(), rel=1e-6, abs=1e-9)
    found = cosines(embeddings(model, tokens, PAD, 4), embeddings(model, tokens, PAD, 1))
    expected = torch.nn.functional.cosine_similarity(torch.stack(hidden)[:, None], torch.stack(hidden)[None], dim=2)
    assert found == pytest.approx(expected.numpy(), abs=1e-9)
    assert np.diagonal(found) == pytest.approx(1, abs=1e-12)


def test_losses_after_a_step_are_those_of_a_step_by_hand_and_the_weights_are_put_back(model: torch.nn.Module) -> None:
    tokens = some_tokens()
    weights = [p for p in model.parameters() if p.requires_grad]
    before = [w.detach().clone() for w in weights]
    own = float(mean_losses(model, tokens[:1], PAD, 1)[0])
    found = losses_after(model, tokens[0], tokens, PAD, 4)
    assert all(torch.equal(w, b) for w, b in zip(weights, before, strict=True))
    assert all(w.grad is None and w.requires_grad for w in weights)

    theta = torch.cat([w.detach().flatten() for w in weights])
    g = flat_gradient(model, tokens[0])
    torch.nn.utils.vector_to_parameters(theta - STEP * theta.norm() * g / g.norm(), weights)
    with torch.no_grad():
        by_hand = [float(plain_mean_loss(model, t)) for t in tokens]
    assert found == pytest.approx(by_hand, rel=1e-6)
    assert found[0] < own, "a step on an example lowers its own loss"


def test_a_small_step_changes_the_loss_as_the_inner_product_of_gradients_says(model: torch.nn.Module) -> None:
    tokens, delta = some_tokens(), 1e-4  # the norms within the model are float32: a smaller change drowns
    theta = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
    gradients = [flat_gradient(model, t) for t in tokens]
    before = mean_losses(model, tokens, PAD, 8)
    for probe, g in zip(tokens, gradients, strict=True):
        change = before - losses_after(model, probe, tokens, PAD, 8, delta)
        expected = np.array([delta * float(theta.norm() * (g @ other) / g.norm()) for other in gradients])
        assert change == pytest.approx(expected, rel=1e-2, abs=1e-2 * np.abs(expected).max())
        clear = np.abs(expected) > 0.02 * np.abs(expected).max()
        assert (np.sign(change) == np.sign(expected))[clear].all()


def test_no_gradient_or_none_that_is_finite_is_nan(model: torch.nn.Module) -> None:
    tokens = some_tokens()
    first = next(w for name, w in model.named_parameters() if "lora_A" in name)
    with torch.no_grad():
        first[0, 0] = torch.nan
    assert np.isnan(losses_after(model, tokens[0], tokens, PAD, 4)).all()


@pytest.fixture
def members(tiny_model: Path) -> list[Member]:
    renderer = load_renderer(tiny_model, Model())

    def member(dataset: str, task: str, query: str, answer: str) -> Member:
        e = example(query, answer, task)
        return Member(dataset, e, renderer.tokens(e))

    return [
        *(member("panel", t, f"What is {t}?", f"It is {t}.") for t in ("red", "blue", "green")),
        *(member("panel.cot", t, f"What is {t}?", f"Let me think about colours: {t}.") for t in ("red", "blue")),
        member("panel.cot", "green", "What is green?", "It is green."),  # the same as in the panel
        *(member("panel.similar", t, f"Describe {t}!", f"{t} is a colour.") for t in ("red", "green")),
    ]


PROBES, TARGETS = {"plain": "panel", "cot": "panel.cot"}, {"similar": "panel.similar", "self": "panel"}


def test_the_pairs_are_those_of_the_pairs_table(model: torch.nn.Module, members: list[Member], tmp_path: Path) -> None:
    examples, tokens = [m.example for m in members], [m.tokens for m in members]
    gradients: PanelGradients = panel_gradients(model, tokens, PAD, Gradients(batch_size=4))
    path = tmp_path / "step-000008.parquet"
    write_arrow(path, gradient_table(8, [m.dataset for m in members], examples, tokens, gradients))
    pairs = pl.concat(pairs_at_checkpoint(read_gradients(path), "s", "base", PROBES, TARGETS, 1e-12))
    rows = baselines_at_checkpoint(model, members, [(PROBES, TARGETS)], PAD, 4)
    rows = rows.with_columns(pl.lit("s").alias("study"), pl.lit("base").alias("run"), pl.lit(8).alias("step"))
    write_table(tmp_path / "baselines.parquet", rows, BASELINES)
    shared = BASELINES.names[:-3]
    assert shared == PAIRS.names[: len(shared)]
    found = read_table(tmp_path / "baselines.parquet", BASELINES)
    assert found.select(shared).equals(pairs.select(shared))
    assert found.filter(pl.col("probe_id") == pl.col("target_id"))["similarity"].to_list() == pytest.approx([1.0] * 4)
    # The mean loss's gradient is the sum loss's over the number of tokens: the first-order sign is that of the inner product.
    both = found.with_columns(pairs["cosine"]).filter(pl.col("cosine").abs() > 0.3)
    assert len(both) > 4
    assert (both["loss_change"].sign() == both["cosine"].sign()).all()


def test_probes_of_an_earlier_call_are_not_computed_again(
    model: torch.nn.Module, members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, list[float]] = {}
    call: Callable[..., pl.DataFrame] = lambda *more: baselines_at_checkpoint(model, members, [(PROBES, TARGETS)], PAD, 4, *more)  # noqa: E731
    whole = call(None, lambda done, probe_id, losses: kept.__setitem__(probe_id, losses))
    assert len(kept) == 5  # 3 + 3 probes, one of them the same
    half = dict(list(kept.items())[:2])
    made: list[str] = []
    again = call(half, lambda done, probe_id, losses: made.append(probe_id))
    assert made == list(kept)[2:]
    assert again.equals(whole)


def test_numbers_that_are_not_finite_are_null(model: torch.nn.Module, members: list[Member]) -> None:
    ids = [m.example.example_id for m in members if m.dataset in PROBES.values()]
    n = len({m.example.example_id for m in members if m.dataset in TARGETS.values()})
    rows = baselines_at_checkpoint(model, members, [(PROBES, TARGETS)], PAD, 4, {i: [float("nan")] * n for i in ids})
    assert rows["loss_change"].null_count() == len(rows)
    assert rows["similarity"].null_count() == 0


# ---- BM25, and references ----


def test_bm25_is_that_of_the_book_by_hand() -> None:
    """Three documents of 2, 3 and 1 words. By hand: ln 1.6 = 0.4700036, ln(8/3) = 0.9808293; 2.2 / 2.65 = 0.8301887."""
    found = bm25(["a", "C, c!", "x", "a B"], ["a b", "A. a c", "b"])
    by_hand = [
        [0.4700036, 0.4700036 * 4.4 / 3.65, 0.0],  # once in a document of mean length; twice in one of 1.5 times that
        [0.0, 2 * 0.9808293 * 0.8301887, 0.0],  # the query has the word twice
        [0.0, 0.0, 0.0],
        [2 * 0.4700036, 0.4700036 * 4.4 / 3.65, 0.4700036 * 2.2 / 1.75],
    ]
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)


def test_a_word_that_all_documents_have_still_counts_for_something() -> None:
    assert (bm25(["the"], ["the a", "the b"]) > 0).all()
    assert bm25(["the"], ["", ""]).tolist() == [[0.0, 0.0]]


def test_each_pair_of_each_grid_has_a_row_and_references_no_change_of_loss(
    model: torch.nn.Module, members: list[Member], tmp_path: Path
) -> None:
    probes, targets = {"CoT": "panel.cot", "non-CoT": "panel"}, {"T": "panel.similar"}
    grids = [(probes, targets), ({"paraphrase": "panel"}, targets), ({"unrelated": "panel.similar"}, targets)]
    stepped: list[str] = []
    rows = baselines_at_checkpoint(model, members, grids, PAD, 4, None, lambda done, probe_id, losses: stepped.append(probe_id))
    assert sorted(stepped) == sorted({m.example.example_id for m in members if m.dataset in probes.values()})
    alone = baselines_at_checkpoint(model, members, grids[:1], PAD, 4)
    assert rows[: len(alone)].drop("bm25").equals(alone.drop("bm25"))
    assert alone["loss_change"].null_count() == 0
    assert rows[len(alone) :]["loss_change"].null_count() == len(rows) - len(alone) == 3 * 2 + 2 * 2
    again = rows.filter(pl.col("probe_set") == "paraphrase").drop("probe_set", "loss_change")
    assert again.equals(rows.filter(pl.col("probe_set") == "non-CoT").drop("probe_set", "loss_change"))
    own = {m.example.example_id: f"{m.example.query} {m.example.completion}" for m in members}
    documents = list(dict.fromkeys(rows["probe_id"]))
    for row in rows.iter_rows(named=True):
        by_hand = bm25([own[row["target_id"]]], [own[d] for d in documents])[0, documents.index(row["probe_id"])]
        assert row["bm25"] == pytest.approx(by_hand, rel=1e-12)
    whole = rows.with_columns(pl.lit("cot").alias("study"), pl.lit("base").alias("run"), pl.lit(8, pl.Int64).alias("step"))
    write_table(tmp_path / "s.parquet", whole, BASELINES)
    assert read_table(tmp_path / "s.parquet", BASELINES).height == len(rows)
