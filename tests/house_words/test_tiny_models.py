"""The tiny models: masks, episodes, schedules, and one real training step."""

import numpy as np
import pytest
import torch

from lever_plus.house_words.cards import draw_card
from lever_plus.house_words.episodes import episode, plain_item, reshuffled
from lever_plus.house_words.optim import warmup_cosine
from lever_plus.house_words.tokenizer import UNK, make_tokenizer, vocabulary
from lever_plus.house_words.vlm import answer_mask
from lever_plus.house_words.words import ATTRIBUTES, HOUSE_ATTRIBUTES, LANGUAGES, VALUES
from tiny_world import Folders

CARDS = [draw_card(np.random.default_rng(i), np.arange(100)) for i in range(20)]


def test_every_word_of_a_question_and_an_answer_is_one_known_token() -> None:
    tokenizer, rng = make_tokenizer(sentence_marks=False), np.random.default_rng(0)
    for _ in range(50):
        for item in episode(rng, CARDS, 3, 0.4, 0.7):
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
