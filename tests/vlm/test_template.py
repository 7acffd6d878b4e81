"""A chat template that no prompt can be made with is refused early, in a sentence."""

import pytest

from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.vlm import template
from lever_plus.vlm.prompt import PromptFormat, check_examples, prompt_hash, render
from lever_plus.vlm.template import told
from vlm.model_zoo import FAMILIES, LLAVA_TEMPLATE

LOOP = "{% for i in range(99999) %}"
PLAIN = Example("i.png", "what is it?", "red", question_id=17)


def why_broken(made: object, style: str = "chat") -> str:
    """Return what is wrong with a template as it is found before any prompt is made."""
    processor = FAMILIES["LLaVA"].build()[1]
    processor.chat_template = made
    prompt = PromptFormat(style)  # type: ignore[arg-type]
    try:
        check_examples((), prompt, processor)
    except UserError as error:
        return str(error)
    render(processor, [PLAIN], PLAIN, prompt)
    return ""


@pytest.mark.parametrize("style", ["chat", "flat"])
@pytest.mark.parametrize(
    "made",
    [
        "{% for m in messages %}",
        "{{ raise_exception('no way') }}",
        "{{ foo.bar }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__ }}",
        5,
        [LLAVA_TEMPLATE],
        {"rag": LLAVA_TEMPLATE},
        "{{ 'x' * 10_000_001 }}" + LLAVA_TEMPLATE,
    ],
)
def test_a_template_that_fails_is_one_sentence(made: object, style: str) -> None:
    assert "the chat template of LlavaProcessor " in why_broken(made, style)


@pytest.mark.parametrize(
    "made",
    [
        f"{LOOP}{LOOP}{{% endfor %}}{{% endfor %}}",
        f"{{% macro f() %}}{LOOP}{{% endfor %}}{{% endmacro %}}{LOOP}{{{{ f() }}}}{{% endfor %}}",
        f"{LOOP}{{{{ range(99999)|map('string')|join|length }}}}{{% endfor %}}",
    ],
)
def test_an_endless_template_is_stopped(made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "SECONDS", 0.2)
    assert "does not end within" in why_broken(made)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("{{ part['text'] }}", "", "does not show every question and answer"),
        (
            "{% for m in messages %}",
            "{% for m in messages if m['role'] == 'user' %}",
            "does not show every question and answer",
        ),
        ("{% for m in messages %}", "{% for m in messages|reverse %}", "in their order"),
        ("<image>\n", "", "makes prompts that cannot be read"),
        ("<image>\n", "<image><image>", "makes prompts that cannot be read"),
        ("{{ bos_token }}", "{{ strftime_now('%s %f') }}", "makes another prompt each time"),
    ],
)
def test_a_template_that_leaves_something_out_is_refused(before: str, after: str, why: str) -> None:
    """Otherwise plain texts would pass, and the VLM would simply not see the demonstrations."""
    assert before in LLAVA_TEMPLATE
    assert why in why_broken(LLAVA_TEMPLATE.replace(before, after))


def test_one_template_among_several_is_the_default() -> None:
    assert why_broken({"default": LLAVA_TEMPLATE, "rag": "{{ foo.bar }}"}) == ""


def test_a_template_that_fails_for_one_text_names_itself() -> None:
    processor = FAMILIES["LLaVA"].build()[1]
    shown = (
        "{% if '<b>' in part['text'] %}{{ raise_exception('bad') }}{% endif %}{{ part['text'] }}"
    )
    processor.chat_template = LLAVA_TEMPLATE.replace("{{ part['text'] }}", shown)
    with pytest.raises(UserError, match=r"chat template of LlavaProcessor fails \(bad\)"):
        render(processor, [Example("i.png", "what <b> is it?", "red")], PLAIN, PromptFormat())


THINKING = LLAVA_TEMPLATE.replace("ASSISTANT:", "ASSISTANT:<think>\n")
SWITCHED = LLAVA_TEMPLATE.replace(
    "ASSISTANT:",
    "ASSISTANT:{% if enable_thinking is false %}<think>\n\n</think>\n{% else %}<think>{% endif %}",
)


def test_a_template_that_can_think_is_told_not_to() -> None:
    assert why_broken(SWITCHED) == ""
    processor = FAMILIES["LLaVA"].build()[1]
    plain = prompt_hash(processor)
    processor.chat_template = SWITCHED
    assert render(processor, [PLAIN], PLAIN).endswith("ASSISTANT:<think>\n\n</think>\n")
    assert prompt_hash(processor) != plain


def test_a_template_that_cannot_think_is_told_nothing() -> None:
    """Its prompts, and the answers that are stored for them, stay what they are."""
    assert told(FAMILIES["LLaVA"].build()[1]) == {}


@pytest.mark.parametrize("mark", ["<think>", "<|thinking|>", "[THINK]", "\u25c1think\u25b7"])
def test_a_model_that_thinks_whatever_it_is_told_is_refused(mark: str) -> None:
    for made in (THINKING, SWITCHED.replace("\n\n</think>\n", "")):
        why = why_broken(made.replace("<think>", mark))
        assert f"begins every answer with {mark}, and has no switch" in why
        assert "Instruct variant" in why
