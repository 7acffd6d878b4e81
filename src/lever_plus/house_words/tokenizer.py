"""The word-level fast tokenizer of the tiny CLIP and the tiny VLM.

Text is lower-cased and punctuation is dropped. Each word of the data set is one token, house words
included, so a question has about seven tokens.
"""

import re
from collections.abc import Iterable
from typing import Final

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast

from lever_plus.house_words.words import (
    ATTRIBUTES,
    HOUSE_ATTRIBUTES,
    HOUSE_STYLES,
    LANGUAGES,
    PHRASINGS,
    VALUES,
)

PAD: Final = "<pad>"
BOS: Final = "<s>"
EOS: Final = "</s>"
UNK: Final = "<unk>"
IMAGE: Final = "<image>"
USER: Final = "<user>"
ASSISTANT: Final = "<assistant>"
SPECIAL: Final = (PAD, BOS, UNK, EOS, IMAGE, USER, ASSISTANT)
PUNCTUATION: Final = r"[.,:;!?]"
CAPTION_WORDS: Final = ("card", "paper", "ink", "a", "on", "with", "at", "the")


def vocabulary() -> list[str]:
    """Return all words of questions, answers and captions in the embedded world."""
    values = (w for by_language in VALUES.values() for words in by_language.values() for w in words)
    house = (
        w for table in (HOUSE_ATTRIBUTES, HOUSE_STYLES) for words in table.values() for w in words
    )
    return sorted({*_phrasing_words(), *values, *house, *ATTRIBUTES, *LANGUAGES, *CAPTION_WORDS})


def _phrasing_words() -> Iterable[str]:
    for phrasing in PHRASINGS:
        text = phrasing.format(attribute="", style="").lower()
        yield from re.sub(PUNCTUATION, " ", text).split()


def make_tokenizer(*, sentence_marks: bool) -> PreTrainedTokenizerFast:
    """Build the tokenizer.

    Args:
        sentence_marks: Whether to put BOS and EOS around each text, as CLIP's text tower needs; a
            VLM's chat template writes its own.
    """
    ids = {token: i for i, token in enumerate((*SPECIAL, *vocabulary()))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(PUNCTUATION), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # It joins words by spaces, the same as no decoder, but servers refuse a tokenizer without.
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    if sentence_marks:
        marks = [(BOS, ids[BOS]), (EOS, ids[EOS])]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A {EOS}", special_tokens=marks
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        extra_special_tokens={
            "image_token": IMAGE,
            "user_token": USER,
            "assistant_token": ASSISTANT,
        },
    )
