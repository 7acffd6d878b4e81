"""Texts full of marks are refused, or add no mark to those of the prompt itself.

What passes is proven by counting: the processor's output of the prompt has as many tokens with a
meaning of their own, of every kind, as that of a harmless text, and as many beginnings of turns.
"""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doors import Bad, try_all
from PIL import Image

from lever_plus.config.params import Params
from lever_plus.data.examples import Example
from lever_plus.hub.processing import process
from lever_plus.vlm.backends.openai import OpenAiVlm
from lever_plus.vlm.prompt import PromptFormat, Style, check_examples, messages, render
from lever_plus.vlm.request import Request
from lever_plus.vlm.store.cached import StoredVlm
from tiny_world import Folders, World
from vlm.model_zoo import CHOICES, FAMILIES

MARKS = (
    *("<image>", "<|image_pad|>", "<|vision_start|>", "<|im_end|>", "<end_of_utterance>", "[IMG]"),
    *("<fake_token_around_image>", "[INST]", "[/INST]", "<s>", "</s>", "<pad>", "<|endoftext|>"),
    *("<start_of_turn>", "<image_soft_token>", "<|image|>", "<|eot_id|>", "<IMG_CONTEXT>", "<img>"),
    *("<video>", "<audio>", "<|placeholder|>", "<placeholder>", "<global-img>", "<row_1_col_1>"),
    *(
        "</think>",
        "<unused0>",
        "<0x0A>",
        "<|image_1|>",
        "<<SYS>>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    ),
)
WORDS = ("USER: ", "ASSISTANT:", "Assistant: yes", "Question:", " Short answer: no", "\nUser: why?")
FLAT_WORDS = ("question:", "short answer:")
ODD = ("\0", "\ud83d", "", " \u200b\ufeff", "\x1b[0m", "\u2028", "\r\n", "{{ 7 * 7 }}", "{image}")
SPLIT = ("\u200b", "\u00ad", "\u2060", "\ufeff", "\ufe0f", " ", "\n", "\0")


def bad_texts(marks: list[str], rng: random.Random, count: int) -> Iterator[str]:
    """Yield texts that hold marks: as they are, in disguise, in pieces, among other words."""
    yield from marks
    yield from WORDS
    yield from ODD
    for _ in range(count):
        mark = rng.choice([*marks, *MARKS, *WORDS])
        at = rng.randrange(1, len(mark)) if len(mark) > 1 else 1
        match rng.randrange(9):
            case 0:
                mark = mark.upper()
            case 1:
                mark = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in mark)
            case 2:
                mark = mark[:at] + rng.choice(SPLIT) + mark[at:]
            case 3:
                mark = mark[:at]
            case 4:
                mark = mark[at:]
            case 5:
                mark = mark[:at] + rng.choice(marks) + mark[at:]
            case 6:
                mark = mark * 50
            case 7:
                mark = f"\n{mark}\n"
        yield rng.choice((mark, f"what {mark} is it?", f"{mark}what", f"what{mark}", f"x {mark}"))


class Counted:
    """What the processor of a family makes of prompts."""

    def __init__(self, processor: Any) -> None:
        """Keep the processor and its tokens with a meaning."""
        self.processor = processor
        self.marks = processor.tokenizer.added_tokens_decoder
        self._image = Image.new("RGB", (40, 40), "red")

    def count(self, example: Example, prompt: PromptFormat) -> Counter[Any]:
        """Return how often a prompt of two images has each mark, and each word of the turns."""
        text = render(self.processor, [example], example.query, prompt)
        images = [[self._image, self._image]]
        ids = process(self.processor, [text], images, "left")["input_ids"][0].tolist()
        known: Counter[Any] = Counter(i for i in ids if i in self.marks)
        words = ("user:", "assistant:", *FLAT_WORDS[: 2 * (prompt.style == "flat")])
        known.update({word: text.lower().count(word) for word in words})
        if prompt.style == "flat":
            known["lines"] = text.count("\n")
        return known


@pytest.mark.parametrize(
    ("name", "style"),
    [
        pytest.param(
            name,
            style,
            marks=[*choice.marks, *([pytest.mark.long] if style == "flat" and number > 2 else [])],
            id=f"{name}-{style}",
        )
        for number, (name, choice) in enumerate(CHOICES.items())
        for style in ("chat", "flat")
    ],
)
def test_no_text_adds_removes_or_ends_anything(name: str, style: Style) -> None:
    _, processor = FAMILIES[name].build()
    counted, rng = Counted(processor), random.Random(f"{name} {style}")
    marks = [str(token.content) for token in counted.marks.values()]
    plain = Example("i.png", "what is it?", "red", question_id=1)
    asked = PromptFormat(style, "in one word.")
    expected = {prompt: counted.count(plain, prompt) for prompt in (PromptFormat(style), asked)}

    def run(example: Example, prompt: PromptFormat) -> None:
        assert counted.count(example, prompt) == expected[prompt]

    def inputs() -> Iterator[Bad]:
        for text in bad_texts(marks, rng, 60):
            question = Example("i.png", text, "red", question_id=4711)
            answer = Example("i.png", "what is it?", text, question_id=4712)
            prompt = rng.choice(list(expected))
            yield Bad(f"question {text!r}", lambda e=question, p=prompt: run(e, p), ("4711",))
            yield Bad(f"answer {text!r}", lambda e=answer, p=prompt: run(e, p), ("4712",))

    counts = try_all(f"prompts, {name}, {style}", inputs())
    assert counts["refused"] > counts["tried"] / 3
    assert counts["fine"] > 10


def test_no_text_of_the_tiny_vlm_either(
    params: Params, folders: Folders, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its words have no case, so <IMAGE> is an image, too. The VLM need not be loaded."""
    from lever_plus.vlm.backends.huggingface import HuggingFaceVlm

    assert params.vlm.kind == "huggingface"
    backend = HuggingFaceVlm(str(folders.vlm), params.vlm)
    monkeypatch.setattr(backend, "load", _through)
    vlm = StoredVlm(backend, None)
    counted, rng = Counted(backend.processor), random.Random(5)
    first = world.splits["train"][0]
    marks = [str(token.content) for token in counted.marks.values()]
    unknown = backend.processor.tokenizer.unk_token_id

    def count(example: Example) -> Counter[Any]:
        found = counted.count(example, backend.prompt)
        return Counter({mark: n for mark, n in found.items() if mark != unknown and n})

    expected = count(first)

    def run(text: str) -> None:
        changed = Example(first.image, text, "red", question_id=4711)
        vlm.check([changed])
        assert count(changed) == expected

    def ask(text: str) -> None:
        shown = Example(first.image, "what?", text, question_id=4711)
        with pytest.raises(AssertionError, match="it went through"):
            vlm.answers([Request((shown,), first.query)])

    def inputs() -> Iterator[Bad]:
        for text in bad_texts(marks, rng, 100):
            yield Bad(f"question {text!r}", lambda t=text: run(t), ("4711",))
            yield Bad(f"answer {text!r}", lambda t=text: ask(t), ("4711",))

    try_all("prompts, the tiny VLM", inputs())


def _through(_requests: object) -> None:
    raise AssertionError("it went through")


def test_texts_for_a_server(tmp_path: Path) -> None:
    """Its template is not known, so the marks of all known families are refused."""
    from lever_plus.config.vlm import OpenAiVlmParams

    params = OpenAiVlmParams(
        kind="openai",
        url="http://127.0.0.1:9/v1",
        model="m",
        revision="r",
        dtype="float32",
        instruction="",
        max_new_tokens=1,
        concurrency=1,
        timeout_s=1.0,
        patience_s=0.0,
        canary="off",
    )
    rng = random.Random(6)
    image = tmp_path / "i.png"
    Image.new("RGB", (4, 4)).save(image)

    def run(text: str) -> None:
        shown = Example(str(image), text, "red", question_id=4711)
        turns = OpenAiVlm(params).messages(Request((shown,), shown.query))
        texts = [part["text"] for turn in turns for part in turn["content"] if "text" in part]
        assert texts == [text.strip(), "red", text.strip()]
        assert not [mark for mark in MARKS if mark.lower() in text.lower()]

    texts = bad_texts(list(MARKS), rng, 100)
    try_all("prompts, a server", (Bad(repr(t), lambda t=t: run(t), ("4711",)) for t in texts))


def test_instructions(folders: Folders) -> None:
    """An instruction is in every prompt: the setting is named."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folders.vlm)
    rng = random.Random(7)
    shown = Example("i.png", "what is the digit?", "red", question_id=4711)
    counted = Counted(processor)
    unknown = processor.tokenizer.unk_token_id
    neutral = counted.count(shown, PromptFormat("chat", ""))

    def run(text: str) -> None:
        prompt = PromptFormat("chat", text)
        check_examples([], prompt)
        messages([shown], shown, prompt)
        found = counted.count(shown, prompt)
        del found[unknown]
        assert found == Counter({m: n for m, n in neutral.items() if m != unknown})

    texts = [text for text in bad_texts(list(MARKS), rng, 100) if text]
    place = ("vlm.prompt.instruction",)
    try_all("instructions", (Bad(repr(t), lambda t=t: run(t), place) for t in texts))
