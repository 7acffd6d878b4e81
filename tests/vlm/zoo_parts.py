"""Parts of the tiny checkpoints of all families: sizes, a tokenizer, a chat template."""

from typing import Any, Final

import transformers as hf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

WIDTH, HEADS, LAYERS = 32, 4, 2
TEXT: Final[dict[str, Any]] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "max_position_embeddings": 4096,
}
VISION: Final[dict[str, Any]] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "initializer_range": 0.3,
}
CORPUS: Final = [
    "what is the digit? answer in english.",
    "which ink is it, in spanish?",
    "user assistant question short answer: red blue green",
]


def tokenizer(*special: str, **named: str) -> Any:
    """Return a byte-level BPE tokenizer with a family's special tokens."""
    marks = ["<pad>", "<s>", "</s>", *special, *named.values()]
    marks = list(dict.fromkeys(marks))
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(mark, normalized=False, special=True) for mark in marks],
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS * 5, trainer)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=named or {},
    )


def template(
    image: str, start: str, end: str, generation: str, bos: str = "{{ bos_token }}"
) -> str:
    """Return a chat template of the usual form."""
    return (
        bos + "{% for m in messages %}" + start + "{% for part in m['content'] %}"
        "{% if part['type'] == 'image' %}" + image + "{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}" + end + "{% endfor %}"
        "{% if add_generation_prompt %}" + generation + "{% endif %}"
    )


CHATML: Final = "<|im_start|>{{ m['role'] }}\n"


def ids(tok: Any) -> dict[str, int]:
    """Return the token ids that text configurations name."""
    return {
        "vocab_size": len(tok),
        "bos_token_id": tok.bos_token_id,
        "eos_token_id": tok.eos_token_id,
        "pad_token_id": tok.pad_token_id,
    }


def finish(model: Any, tok: Any, *ends: str) -> Any:
    """Set the tokens that end an answer."""
    marks = ["</s>", *ends]
    model.generation_config.eos_token_id = [tok.convert_tokens_to_ids(mark) for mark in marks]
    model.generation_config.pad_token_id = tok.pad_token_id
    return model
