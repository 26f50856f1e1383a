#!/usr/bin/env python3
"""Two tiny Qwen3 models with random weights, for tests against real vLLM.

usage: make_models.py DIR

Writes DIR/tiny-qwen3 and DIR/tiny-qwen3-b. Same seed, same bytes.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM  # noqa: E402

CONTEXT = 4096
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Any text does: the tokenizer only has to be a real byte-level BPE that maps
# every string to tokens and back.
TEXT = [
    "The server takes requests in batches and answers each with a stream of tokens.",
    "A sweep starts one server for each configuration, measures it and stops it.",
    "Throughput is counted in tokens per second, latency in milliseconds.",
    "Time to first token, time per output token, inter-token latency, end to end.",
    "Größe, naïveté, 東京, שלום and emoji 🙂 are bytes like all others.",
    "0123456789 +-*/=()[]{}<>.,;:!?'\"\\|@#$%^&~`_",
    "for model in models: for tp in sizes: run(model, tp)",
]

MODELS = {
    "tiny-qwen3": dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2),
    "tiny-qwen3-b": dict(hidden_size=256, intermediate_size=512, num_hidden_layers=3),
}


def tokenizer() -> PreTrainedTokenizerFast:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tok.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tok,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def make(name: str, sizes: dict, target: Path) -> None:
    tok = tokenizer()
    # A multiple of 64 above the trained size keeps every kernel's alignment.
    config = Qwen3Config(
        vocab_size=(len(tok) + 63) // 64 * 64,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        use_sliding_window=False,
        bos_token_id=None,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
        **sizes,
    )
    torch.manual_seed(20)
    model = Qwen3ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(target, safe_serialization=True)
    tok.save_pretrained(target)
    params = sum(p.numel() for p in model.parameters())
    print(f"{name}: {params:,} parameters, vocabulary {config.vocab_size}")
    # What the test would stumble over much later.
    assert tok.decode(tok.encode("Größe 東京 42")) == "Größe 東京 42"
    assert json.loads((target / "config.json").read_text())["architectures"] == ["Qwen3ForCausalLM"]


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    for name, sizes in MODELS.items():
        make(name, sizes, Path(sys.argv[1]) / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
