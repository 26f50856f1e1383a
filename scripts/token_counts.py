#!/usr/bin/env python3
"""Tokens as transformers counts them and as vllm-bench counts them, for twelve families of models.

    python3 -m venv V && V/bin/pip install transformers sentencepiece protobuf jinja2
    V/bin/python scripts/token_counts.py [--binary target/release/vllm-bench] [--keep FOLDER]

Builds a small tokenizer for each family (some hundred tokens, with the family's own normalizer, pre-tokenizer,
post-processor and `tokenizer_config.json`), and compares, with the transformers of this Python (4 or 5: the same files are
read differently, and `--tokenizer-mode` says which counts): the tokens of texts that are hard to read, twelve random prompts
as vLLM's `random` data set makes them, and a chat through the chat template. Exit code 1 when anything differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

WORDS = ("the quick brown fox jumps over the lazy dog . And , then it isn't what you 've we 're 's ' x ! ? n't don't 'm "
         "Zürich 東京 1234 56 7,8 a.b Hello hello world user assistant system").split(" ")
TEXTS = ["", " ", "\n", "a", "Hello, world!", "the dog . isn't , 's ' x", "  two  spaces ", "tab\tand\r\nlines\n\n", "Zürich 東京 🚀 é",
         "1234567 3.14 1,000", "<s>", "</s>", "<BOS>", "<bos>", "<|endoftext|>", "<|im_start|>user", "<start_of_image>", "<image>",
         "x<s>y", " <s> ", "\u00a0\u200b\ufeff", "İıßﬁ", "don't we're you've I'm", "a" * 50, "\u0000\u0007", "- " * 20,
         "def f(x):\n    return x  # it\n", "CAPS Caps", "é e\u0301", "'''\"\"\"", "{\"a\": [1, null]}", "…—–“”", "\t\t  \n x"]
SPECIAL = ["--special-tokens"]
TEMPLATE = ("{{ bos_token or '' }}{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{{ eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}<assistant>{% endif %}")


def families():
    """(name, model_type, tokenizer, tokenizer_config) of each family."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    def trained(tokenizer, trainer):
        tokenizer.train_from_iterator([" ".join(WORDS)] * 4 + WORDS * 3, trainer)
        return tokenizer

    def byte_level(specials, pattern=None, **settings):
        tokenizer = Tokenizer(models.BPE(**settings))
        split = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [*split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pattern)])
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        trained(tokenizer, trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                               show_progress=False))
        tokenizer.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in specials])
        return tokenizer

    def sentence_piece(specials, post, prepend=True):
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
        first = ["<unk>", *specials]
        trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=first + alphabet, show_progress=False)
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence(
            ([normalizers.Prepend("▁")] if prepend else []) + [normalizers.Replace(" ", "▁")])
        trained(tokenizer, trainer)
        saved = json.loads(tokenizer.to_str())
        saved["added_tokens"] = [one for one in saved["added_tokens"] if not one["content"].startswith("<0x")]
        tokenizer = Tokenizer.from_str(json.dumps(saved))
        strip = [decoders.Strip(" ", 1, 0)] if prepend else []
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
        if post:
            tokenizer.post_processor = begin(tokenizer, post)
        return tokenizer

    def begin(tokenizer, token, end=None):
        ends = [(one, tokenizer.token_to_id(one)) for one in (token, end) if one]
        after = f" {end}:0" if end else ""
        return processors.TemplateProcessing(single=f"{token}:0 $A:0{after}", pair=f"{token}:0 $A:0 {token}:1 $B:1", special_tokens=ends)

    def with_begin(tokenizer, token):
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), begin(tokenizer, token)])
        return tokenizer

    def added(text):
        return {"__type": "AddedToken", "content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}

    words = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    qwen_words = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|" + words.replace(r"\p{N}{1,3}", r"\p{N}")
    qwen = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], qwen_words)
    qwen.normalizer = normalizers.NFC()
    yield "Qwen3", "qwen3", qwen, {
        "add_bos_token": False, "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "clean_up_tokenization_spaces": False,
        "tokenizer_class": "Qwen2Tokenizer"}
    yield "gpt-oss", "gpt_oss", byte_level(["<|startoftext|>", "<|endoftext|>", "<|return|>"], words), {
        "bos_token": "<|startoftext|>", "eos_token": "<|return|>", "pad_token": "<|endoftext|>", "extra_special_tokens": {},
        "clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast"}
    yield "Llama 2", "llama", sentence_piece(["<s>", "</s>"], "<s>"), {
        "add_bos_token": True, "add_eos_token": False, "bos_token": added("<s>"), "eos_token": added("</s>"),
        "unk_token": added("<unk>"), "pad_token": None, "clean_up_tokenization_spaces": False, "legacy": False,
        "tokenizer_class": "LlamaTokenizer"}
    yield "Llama 3.1", "llama", with_begin(byte_level(["<|begin_of_text|>", "<|eot_id|>"], words, ignore_merges=True), "<|begin_of_text|>"), {
        "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "clean_up_tokenization_spaces": True,
        "tokenizer_class": "PreTrainedTokenizerFast"}
    gemma = sentence_piece(["<pad>", "<eos>", "<bos>", "<start_of_image>", "<end_of_image>", "<image>"], "<bos>", prepend=False)
    yield "Gemma 3", "gemma3_text", gemma, {
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
        "unk_token": "<unk>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image>",
        "extra_special_tokens": {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image>"},
        "clean_up_tokenization_spaces": False, "tokenizer_class": "GemmaTokenizer"}
    yield "DeepSeek-V3", "deepseek_v3", byte_level(["<BOS>", "<EOS>", "<PAD>"], words), {
        "add_bos_token": True, "add_eos_token": False, "bos_token": added("<BOS>"), "eos_token": added("<EOS>"),
        "pad_token": added("<PAD>"), "unk_token": None, "clean_up_tokenization_spaces": False, "legacy": True,
        "tokenizer_class": "LlamaTokenizerFast"}
    yield "Mistral", "mistral", sentence_piece(["<s>", "</s>", "[INST]", "[/INST]"], "<s>"), {
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "additional_special_tokens": ["[INST]", "[/INST]"], "clean_up_tokenization_spaces": False, "legacy": False,
        "tokenizer_class": "LlamaTokenizer"}
    yield "Phi-4", "phi3", byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], words), {
        "add_bos_token": False, "bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>", "clean_up_tokenization_spaces": False, "tokenizer_class": "GPT2Tokenizer"}
    cohere = byte_level(["<PAD>", "<UNK>", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"])
    cohere.normalizer = normalizers.NFC()
    cohere.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True)])
    cohere = with_begin(cohere, "<BOS_TOKEN>")
    yield "Command R", "cohere", cohere, {
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>",
        "pad_token": "<PAD>", "unk_token": "<UNK>", "clean_up_tokenization_spaces": False, "tokenizer_class": "CohereTokenizer"}
    yield "GLM-4", "glm4", byte_level(["<|endoftext|>", "<sop>", "<|user|>"], words), {
        "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "additional_special_tokens": ["<|endoftext|>", "<sop>", "<|user|>"],
        "clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast"}
    yield "GPT-2", "gpt2", byte_level(["<|endoftext|>"]), {
        "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "add_prefix_space": False,
        "clean_up_tokenization_spaces": True, "tokenizer_class": "GPT2Tokenizer"}
    bert = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    bert.normalizer = normalizers.BertNormalizer(lowercase=True)
    bert.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    bert.decoder = decoders.WordPiece()
    trained(bert, trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    bert.post_processor = begin(bert, "[CLS]", "[SEP]")
    yield "WordPiece (BERT)", "bert", bert, {
        "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]", "unk_token": "[UNK]",
        "clean_up_tokenization_spaces": True, "tokenizer_class": "PreTrainedTokenizerFast"}


def random_prompts(tokenizer, count=12, length=40):
    """`RandomDataset.sample` of vLLM's client with seed 0 and one length."""
    import numpy as np
    rng = np.random.default_rng(0)
    real = length - int(tokenizer.num_special_tokens_to_add())
    lengths = rng.integers(real, real + 1, size=count)
    rng.integers(16, 17, size=count)
    offsets = rng.integers(0, tokenizer.vocab_size, size=count)
    allowed = np.array(sorted(set(range(tokenizer.vocab_size)) - set(tokenizer.all_special_ids)))
    prompts = []
    for index in range(count):
        ids = allowed[(offsets[index] + index + np.arange(lengths[index])) % len(allowed)].tolist()
        for tries in range(11):
            text = tokenizer.decode(ids)
            ids = tokenizer.encode(text, add_special_tokens=False)
            if len(ids) == lengths[index] or tries == 10:
                break
            if len(ids) < lengths[index]:
                ids += rng.integers(0, tokenizer.vocab_size, size=lengths[index] - len(ids)).tolist()
            ids = ids[:lengths[index]]
        prompts.append((text, len(ids)))
    return prompts


def ask(binary, mode, folder, arguments):
    """What `prompts inspect` and `prompts build` hand out, as JSON."""
    saved = Path(folder, "asked.jsonl")
    done = subprocess.run([binary, "prompts", "build", "-o", saved, "--tokenizer", folder, "--tokenizer-mode", mode, *arguments],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"prompts build: exit {done.returncode}: {done.stderr}")
    return [json.loads(line) for line in saved.read_text().split("\n") if line]


def compare(binary, mode, folder, tokenizer):
    """Texts, random prompts and chats that are alike, out of all."""
    with_text = [text for text in TEXTS if text.strip()]
    rows = Path(folder, "texts.jsonl")
    rows.write_text("".join(json.dumps({"messages": [{"role": "user", "content": text}]}) + "\n" for text in with_text))
    render = [binary, "prompts", "render", "--json", "--tokenizer", folder, "--tokenizer-mode", mode, "--messages", rows]
    plain = Path(folder, "plain.jinja")
    plain.write_text("{{ messages[0].content }}")
    out = []
    done = subprocess.run([*render, "--chat-template", plain, *SPECIAL], capture_output=True, text=True, encoding="utf-8", check=False)
    mine = [json.loads(line) for line in done.stdout.split("\n") if line]
    theirs = [len(tokenizer(text).input_ids) for text in with_text]
    out.append((sum(one.get("tokens") == other for one, other in zip(mine, theirs)), len(theirs)))
    prompts = ask(binary, mode, folder, ["-n", "12", "--random-input-len", "40", "--random-output-len", "16", "--seed", "0"])
    mine = [prompt["messages"][0]["content"] for prompt in prompts]
    theirs = [text for text, _ in random_prompts(tokenizer)]
    out.append((sum(one == other for one, other in zip(mine, theirs)), len(theirs)))
    done = subprocess.run(render, capture_output=True, text=True, encoding="utf-8", check=False)
    mine = [json.loads(line) for line in done.stdout.split("\n") if line]
    theirs = []
    for text in with_text:
        chat = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
        theirs.append((chat, len(tokenizer.encode(chat, add_special_tokens=False))))
    out.append((sum((one.get("text"), one.get("tokens")) == other for one, other in zip(mine, theirs)), len(theirs)))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/vllm-bench")
    parser.add_argument("--keep", help="folder for the tokenizers (default: a temporary one)")
    options = parser.parse_args()
    import transformers
    from transformers import AutoTokenizer
    mode = f"transformers{min(5, int(transformers.__version__.split('.')[0]))}"
    print(f"transformers {transformers.__version__} (--tokenizer-mode {mode})")
    print(f"{'family':<20} {'texts':>10} {'random prompts':>16} {'chats':>10}")
    bad = 0
    with tempfile.TemporaryDirectory() as temporary:
        for name, model_type, tokenizer, config in families():
            folder = Path(options.keep or temporary, name.replace(" ", "-").lower())
            folder.mkdir(parents=True, exist_ok=True)
            tokenizer.save(str(folder / "tokenizer.json"))
            (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": TEMPLATE}))
            (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
            theirs = AutoTokenizer.from_pretrained(str(folder))
            # The class may read the files in its own way: what counts is what it makes of them.
            results = compare(options.binary, mode, folder, theirs)
            bad += any(alike != all_of for alike, all_of in results)
            cells = [f"{alike} of {all_of}" for alike, all_of in results]
            print(f"{name:<20} {cells[0]:>10} {cells[1]:>16} {cells[2]:>10}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
