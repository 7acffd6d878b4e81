"""The tiny models: masks, episodes, schedules, and one real training step."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from lever_plus.house_words.cards import draw_card
from lever_plus.house_words.episodes import (
    Item,
    Kind,
    KindShares,
    episode,
    plain_item,
    reshuffled,
)
from lever_plus.house_words.optim import warmup_cosine
from lever_plus.house_words.tokenizer import UNK, make_tokenizer, vocabulary
from lever_plus.house_words.vlm import Trainer, answer_mask, save
from lever_plus.house_words.words import (
    ATTRIBUTES,
    HOUSE_ATTRIBUTES,
    HOUSE_STYLES,
    LANGUAGES,
    VALUES,
)
from lever_plus.hub.loading import load_model
from tiny_world import Folders

EVERY: Sequence[Kind] = ("attribute", "language", "other", "plain", "both", "both")
CARDS = [draw_card(np.random.default_rng(i), np.arange(100)) for i in range(20)]


def test_every_word_of_a_question_and_an_answer_is_one_known_token() -> None:
    tokenizer, rng = make_tokenizer(sentence_marks=False), np.random.default_rng(0)
    for _ in range(50):
        for item in episode(rng, CARDS, EVERY):
            tokens = tokenizer.tokenize(f"{item.question} {item.answer}")
            assert UNK not in tokens
            assert len(tokenizer.tokenize(item.answer)) == 1
    assert len(vocabulary()) == len(set(vocabulary()))


def test_house_words_mean_something_new_in_every_episode() -> None:
    rng = np.random.default_rng(0)
    one, other = (reshuffled(rng, HOUSE_ATTRIBUTES) for _ in range(2))
    assert one != other
    assert sorted(w for ws in one.values() for w in ws) == sorted(
        w for ws in HOUSE_ATTRIBUTES.values() for w in ws
    )
    assert {len(words) for words in one.values()} == {6}


def house(question: str) -> tuple[bool, bool]:
    """Return whether a question has a house word for the attribute, and for the language."""
    words = set(re.split(r"[ ,.?]+", question))
    first, second = (
        any(words & set(group) for group in table.values())
        for table in (HOUSE_ATTRIBUTES, HOUSE_STYLES)
    )
    return first, second


def meanings(item: Item) -> set[tuple[str, str]]:
    """Return every (attribute, language) that an item's answer can be of."""
    card = CARDS[item.card]
    return {
        (a, x) for a in ATTRIBUTES for x in LANGUAGES if VALUES[a][x][card.value(a)] == item.answer
    }


def test_examples_of_an_episode_explain_what_their_kind_says() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, s, o, p, b1, b2 = episode(rng, CARDS, EVERY)
        assert [house(i.question) for i in (a, s, o, p, b1, b2)] == [
            *((True, False), (False, True), (True, True)),
            *((False, False), (True, True), (True, True)),
        ]
        asked = meanings(b1) & meanings(b2)
        assert {x for x, _ in asked} & {x for x, _ in meanings(a)}
        assert {y for _, y in asked} & {y for _, y in meanings(s)}
        assert any(x != m and y != n for x, y in meanings(o) for m, n in asked)


def test_kinds_are_drawn_as_often_as_asked_and_the_last_asks_in_house_words() -> None:
    rng, shares = np.random.default_rng(0), KindShares(half=0.3, both=0.2, other=0.1)
    drawn = [shares.draw(rng, 6) for _ in range(1000)]
    assert {kinds[-1] for kinds in drawn} == {"both"}
    counts = Counter(kind for kinds in drawn for kind in kinds[:-1])
    for kind, share in (("attribute", 0.3), ("language", 0.3), ("both", 0.2), ("other", 0.1)):
        assert counts[kind] / 5000 == pytest.approx(share, abs=0.03)  # type: ignore[index]


def test_the_share_of_right_answers_reads_the_last_answer_alone() -> None:
    tokenizer = make_tokenizer(sentence_marks=False)
    ids = torch.tensor(
        [
            tokenizer.convert_tokens_to_ids(row.split())
            for row in (
                "<user> what <assistant> rot </s> <user> what <assistant> blau </s>",
                "<user> what <assistant> rot </s> <user> what <assistant> grün </s>",
            )
        ]
    )
    given = torch.nn.functional.one_hot(ids.roll(-1, 1), len(tokenizer)).float()
    wrong = given.clone()
    wrong[0, 7] = wrong[0, 2]  # says "rot" again

    class Told(Trainer):
        """A trainer whose VLM says what it is told."""

        def __init__(self, hidden: torch.Tensor) -> None:
            model = SimpleNamespace(lm_head=torch.nn.Identity())
            processor = SimpleNamespace(tokenizer=tokenizer)
            super().__init__(model, processor, CARDS, hidden)  # type: ignore[arg-type]

        def _forward(self, _episodes: object) -> tuple[torch.Tensor, torch.Tensor]:
            return ids, self.features

    assert Told(given).share_right(["both"], 2, 1) == 1.0
    assert Told(wrong).share_right(["both"], 2, 1) == 0.5


def test_a_saved_vlm_has_the_keys_of_published_checkpoints_and_loads_with_every_weight(
    folders: Folders, tmp_path: Path
) -> None:
    model = LlavaForConditionalGeneration.from_pretrained(folders.vlm)
    save(model, LlavaProcessor.from_pretrained(folders.vlm), tmp_path)
    names = load_file(tmp_path / "model.safetensors")
    tower = [name for name in names if name.startswith("vision_tower.")]
    assert tower
    assert all(name.startswith("vision_tower.vision_model.") for name in tower)
    assert {tensor.dtype for tensor in names.values()} == {torch.float16}
    loaded = load_model(LlavaForConditionalGeneration, str(tmp_path), None, "cpu")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_the_tokenizer_joins_words_by_blanks_and_says_so() -> None:
    tokenizer = make_tokenizer(sentence_marks=False)
    assert tokenizer.decode(tokenizer("Which ink, in florp?")["input_ids"]) == "which ink in florp"
    assert json.loads(tokenizer.backend_tokenizer.to_str())["decoder"]


def test_an_episode_s_answers_are_true_of_its_cards() -> None:
    rng = np.random.default_rng(0)
    for item in [plain_item(rng, CARDS) for _ in range(50)]:
        attribute = next(a for a in ATTRIBUTES if a in item.question)
        language = next(x for x in LANGUAGES if x.capitalize() in item.question)
        assert item.answer == VALUES[attribute][language][CARDS[item.card].value(attribute)]


def test_the_answer_mask_covers_answers_and_end_marks_only() -> None:
    assistant, end = 8, 9
    ids = torch.tensor([[1, 5, 8, 3, 9, 5, 8, 4, 4, 9, 0]])
    expected = [0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0]
    assert answer_mask(ids, assistant, end).int().tolist() == [expected]


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule, rates = warmup_cosine(optimizer, 10, 2), []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:2] == [0.5, 1.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)


def test_the_folders_are_ordinary_hugging_face_folders(folders: Folders) -> None:
    from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor

    assert type(AutoModel.from_pretrained(folders.clip)).__name__ == "CLIPModel"
    vlm = AutoModelForImageTextToText.from_pretrained(folders.vlm)
    assert type(vlm).__name__ == "LlavaForConditionalGeneration"
    assert AutoProcessor.from_pretrained(folders.vlm).chat_template
