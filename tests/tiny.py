"""A tiny random Llama with the packaged model's tokenizer: the real code paths in seconds."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))


def make_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Save the model to ``folder`` (1.6 million weights, most of them embeddings)."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from swift_study.models.loading import packaged_model

    tokenizer = AutoTokenizer.from_pretrained(str(packaged_model(ROOT / ".cache")))
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    make_tiny_model(Path(sys.argv[1]))
