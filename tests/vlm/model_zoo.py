"""Tiny randomly initialised checkpoints of every supported VLM family, as ordinary folders.

Each is built from the family's own configuration and processor classes. Families whose processor
needs torchvision are listed too; where it is missing they are skipped with that reason.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import torch
import transformers as hf

from vlm import zoo_today
from vlm.zoo_parts import CHATML, HEADS, TEXT, VISION, WIDTH, finish, ids, template, tokenizer


@dataclass(frozen=True)
class Family:
    """How a family's tiny checkpoint is made, and what is known about it.

    Attributes:
        build: Returns (model, processor).
        real: A public checkpoint of the family.
        torchvision: Whether its processor needs torchvision.
    """

    build: Callable[[], tuple[Any, Any]]
    real: str
    torchvision: bool = False


LLAVA_TEMPLATE: Final = template(
    "<image>\n",
    "{{ m['role'] | upper }}: ",
    "{% if m['role'] == 'assistant' %}</s>{% else %}\n{% endif %}",
    "ASSISTANT:",
)
IDEFICS_TEMPLATE: Final = template(
    "<image>", "{{ m['role'] | capitalize }}: ", "<end_of_utterance>\n", "Assistant:"
)


def clip_vision(size: int) -> Any:
    """Return the configuration of a small CLIP vision tower with 8-pixel patches."""
    return hf.CLIPVisionConfig(**VISION, image_size=size, patch_size=8, projection_dim=WIDTH)


def llava() -> tuple[Any, Any]:
    """LLaVA 1.5: CLIP and Llama."""
    tok = tokenizer("<image>")
    image = tok.convert_tokens_to_ids("<image>")
    config = hf.LlavaConfig(
        vision_config=clip_vision(32),
        text_config=hf.LlamaConfig(**TEXT, **ids(tok)),
        image_token_index=image,
    )
    processor = hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessorPil(size=32, crop_size=32),
        tokenizer=tok,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )
    return finish(hf.LlavaForConditionalGeneration(config), tok), processor


def llava_next() -> tuple[Any, Any]:
    """LLaVA-NeXT: several views of an image, as many as its shape asks for."""
    tok = tokenizer("<image>")
    grid = [[32, 64], [64, 32], [64, 64]]
    config = hf.LlavaNextConfig(
        vision_config=clip_vision(32),
        text_config=hf.LlamaConfig(**TEXT, **ids(tok)),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
    )
    processor = hf.LlavaNextProcessor(
        image_processor=hf.LlavaNextImageProcessorPil(
            size={"shortest_edge": 32},
            crop_size={"height": 32, "width": 32},
            image_grid_pinpoints=grid,
        ),
        tokenizer=tok,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )
    return finish(hf.LlavaNextForConditionalGeneration(config), tok), processor


def idefics2() -> tuple[Any, Any]:
    """Idefics2: SigLIP, a perceiver and Mistral."""
    tok = tokenizer("<fake_token_around_image>", "<image>", "<end_of_utterance>")
    config = hf.Idefics2Config(
        vision_config={**VISION, "image_size": 32, "patch_size": 8},
        perceiver_config={
            "hidden_size": WIDTH,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 1,
        },
        text_config=hf.MistralConfig(**TEXT, **ids(tok), sliding_window=None),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
    )
    processor = hf.Idefics2Processor(
        image_processor=hf.Idefics2ImageProcessorPil(
            size={"shortest_edge": 24, "longest_edge": 32}, do_image_splitting=False
        ),
        tokenizer=tok,
        image_seq_len=4,
        chat_template=IDEFICS_TEMPLATE,
    )
    model = hf.Idefics2ForConditionalGeneration(config)
    return finish(model, tok, "<end_of_utterance>"), processor


def _idefics3_tokens() -> list[str]:
    rows = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
    return ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *rows]


def idefics3() -> tuple[Any, Any]:
    """Idefics3: SigLIP, pixel shuffle and Llama; images are cut into tiles."""
    tok = tokenizer(*_idefics3_tokens())
    config = hf.Idefics3Config(
        vision_config={**VISION, "image_size": 32, "patch_size": 8},
        text_config=hf.LlamaConfig(**TEXT, **ids(tok)),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = hf.Idefics3Processor(
        image_processor=hf.Idefics3ImageProcessorPil(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
        ),
        tokenizer=tok,
        image_seq_len=4,
        chat_template=IDEFICS_TEMPLATE,
    )
    model = hf.Idefics3ForConditionalGeneration(config)
    return finish(model, tok, "<end_of_utterance>"), processor


def gemma3() -> tuple[Any, Any]:
    """Gemma 3: SigLIP and Gemma; image tokens see one another, some layers a window only."""
    named = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    tok = tokenizer("<start_of_turn>", "<end_of_turn>", **named)
    text = {**TEXT, "head_dim": 8, "sliding_window": 64}
    config = hf.Gemma3Config(
        text_config=hf.Gemma3TextConfig(**text, **ids(tok)),
        vision_config=hf.SiglipVisionConfig(
            **{k: v for k, v in VISION.items() if k != "initializer_range"},
            image_size=32,
            patch_size=8,
            vision_use_head=False,
        ),
        mm_tokens_per_image=4,
        boi_token_index=tok.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tok.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tok.convert_tokens_to_ids("<image_soft_token>"),
    )
    role = "{{ 'model' if m['role'] == 'assistant' else m['role'] }}"
    processor = hf.Gemma3Processor(
        image_processor=hf.Gemma3ImageProcessorPil(size={"height": 32, "width": 32}),
        tokenizer=tok,
        image_seq_length=4,
        chat_template=template(
            "<start_of_image>",
            f"<start_of_turn>{role}\n",
            "<end_of_turn>\n",
            "<start_of_turn>model\n",
        ),
    )
    return finish(hf.Gemma3ForConditionalGeneration(config), tok, "<end_of_turn>"), processor


def qwen2_5_vl() -> tuple[Any, Any]:
    """Qwen2.5-VL: images of any size, positions in three dimensions."""
    marks = [
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ]
    tok = tokenizer(*marks)
    token = tok.convert_tokens_to_ids
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = hf.Qwen2_5_VLConfig(
        text_config={**TEXT, **ids(tok), "rope_parameters": rope},
        vision_config={
            "depth": 2,
            "hidden_size": WIDTH,
            "intermediate_size": 48,
            "num_heads": HEADS,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "window_size": 32,
            "fullatt_block_indexes": [1],
            "out_hidden_size": WIDTH,
            "initializer_range": 0.3,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )
    pixels = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    processor = hf.Qwen2_5_VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(patch_size=8, merge_size=2, size=pixels),
        video_processor=hf.Qwen2VLVideoProcessor(patch_size=8, merge_size=2, size=pixels),
        tokenizer=tok,
        chat_template=template(
            "<|vision_start|><|image_pad|><|vision_end|>",
            CHATML,
            "<|im_end|>\n",
            "<|im_start|>assistant\n",
            bos="",
        ),
    )
    return finish(hf.Qwen2_5_VLForConditionalGeneration(config), tok, "<|im_end|>"), processor


def smolvlm() -> tuple[Any, Any]:
    """SmolVLM: like Idefics3, smaller."""
    tok = tokenizer(*_idefics3_tokens(), "<video>")
    config = hf.SmolVLMConfig(
        vision_config={**VISION, "image_size": 32, "patch_size": 8},
        text_config=hf.LlamaConfig(**TEXT, **ids(tok)),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    sizes: dict[str, Any] = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    processor = hf.SmolVLMProcessor(
        image_processor=hf.SmolVLMImageProcessor(**sizes),
        video_processor=hf.SmolVLMVideoProcessor(**sizes),
        tokenizer=tok,
        image_seq_len=4,
        chat_template=IDEFICS_TEMPLATE,
    )
    model = hf.SmolVLMForConditionalGeneration(config)
    return finish(model, tok, "<end_of_utterance>"), processor


def llava_onevision() -> tuple[Any, Any]:
    """LLaVA-OneVision: SigLIP and Qwen2, several views of an image."""
    tok = tokenizer("<|im_start|>", "<|im_end|>", "<image>", "<video>")
    grid = [[32, 32], [32, 64], [64, 32], [64, 64]]
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(
            **{k: v for k, v in VISION.items() if k != "initializer_range"},
            image_size=32,
            patch_size=8,
            vision_use_head=False,
        ),
        text_config=hf.Qwen2Config(**TEXT, **ids(tok)),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        video_token_index=tok.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
    )
    square = {"height": 32, "width": 32}
    processor = hf.LlavaOnevisionProcessor(
        image_processor=hf.LlavaOnevisionImageProcessor(size=square, image_grid_pinpoints=grid),
        video_processor=hf.LlavaOnevisionVideoProcessor(size=square),
        tokenizer=tok,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template(
            "<image>\n", CHATML, "<|im_end|>\n", "<|im_start|>assistant\n", bos=""
        ),
    )
    model = hf.LlavaOnevisionForConditionalGeneration(config)
    return finish(model, tok, "<|im_end|>"), processor


def lfm2_vl() -> tuple[Any, Any]:
    """LFM2-VL: SigLIP 2 and a language model of convolutions and attention."""
    named = {
        "image_token": "<image>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "image_thumbnail": "<|img_thumbnail|>",
    }
    rows = [f"<|img_row_{i}_col_{j}|>" for i in range(1, 5) for j in range(1, 5)]
    tok = tokenizer("<|im_start|>", "<|im_end|>", *rows, **named)
    text = {**TEXT, **ids(tok), "layer_types": ["conv", "full_attention"], "block_ff_dim": 48}
    text["block_auto_adjust_ff_dim"] = False
    config = hf.Lfm2VlConfig(
        vision_config=hf.Siglip2VisionConfig(
            **{k: v for k, v in VISION.items() if k != "initializer_range"},
            num_patches=16,
            patch_size=8,
            vision_use_head=False,
        ),
        text_config=hf.Lfm2Config(**text),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        downsample_factor=2,
        projector_hidden_size=WIDTH,
    )
    processor = hf.Lfm2VlProcessor(
        image_processor=hf.Lfm2VlImageProcessor(
            encoder_patch_size=8,
            downsample_factor=2,
            tile_size=32,
            min_image_tokens=1,
            max_image_tokens=4,
            max_num_patches=16,
            do_image_splitting=False,
        ),
        tokenizer=tok,
        chat_template=template(
            "<image>", CHATML, "<|im_end|>\n", "<|im_start|>assistant\n", bos=""
        ),
    )
    return finish(hf.Lfm2VlForConditionalGeneration(config), tok, "<|im_end|>"), processor


FAMILIES: Final[Mapping[str, Family]] = {
    "LLaVA": Family(llava, "llava-hf/llava-1.5-7b-hf"),
    "LLaVA-NeXT": Family(llava_next, "llava-hf/llava-v1.6-mistral-7b-hf"),
    "LLaVA-OneVision": Family(llava_onevision, "llava-hf/llava-onevision-qwen2-0.5b-ov-hf", True),
    "Idefics2": Family(idefics2, "HuggingFaceM4/idefics2-8b"),
    "Idefics3": Family(idefics3, "HuggingFaceM4/Idefics3-8B-Llama3"),
    "SmolVLM2": Family(smolvlm, "HuggingFaceTB/SmolVLM2-2.2B-Instruct", True),
    "Qwen2.5-VL": Family(qwen2_5_vl, "Qwen/Qwen2.5-VL-3B-Instruct", True),
    "Qwen3-VL": Family(zoo_today.qwen3_vl, "Qwen/Qwen3-VL-4B-Instruct", True),
    "Qwen3.5": Family(zoo_today.qwen3_5, "Qwen/Qwen3.5-27B", True),
    "Gemma 3": Family(gemma3, "google/gemma-3-4b-it"),
    "Gemma 4": Family(zoo_today.gemma4, "google/gemma-4-E2B-it", True),
    "InternVL": Family(zoo_today.internvl, "OpenGVLab/InternVL3-1B-hf", True),
    "LFM2-VL": Family(lfm2_vl, "LiquidAI/LFM2-VL-450M", True),
    "LFM3-VL": Family(zoo_today.lfm3_vl, "LiquidAI/LFM3-VL-2B", True),
    "MiniCPM-V 4.6": Family(zoo_today.minicpmv4_6, "openbmb/MiniCPM-V-4.6", True),
    "Molmo2": Family(zoo_today.molmo2, "allenai/Molmo2-8B", True),
    "GLM-4.6V": Family(zoo_today.glm46v, "zai-org/GLM-4.6V-Flash", True),
    "Granite Vision 4": Family(zoo_today.granite4_vision, "ibm-granite/granite-vision-4.1-4b"),
    "Ovis2": Family(zoo_today.ovis2, "thisisiron/Ovis2-1B-hf"),
}
WHOLE: Final[Mapping[str, str]] = {
    "MiniCPM-V 4.6": "a prompt is not the concatenation of its turns",
    "Molmo2": "its likelihoods would differ by",
    "Granite Vision 4": "its language model gets deepstack_features",
}
"""Families whose prompts run whole, and how the reason begins or ends; others share prefixes."""
IN_COMPANY: Final = {"LLaVA-OneVision"}
"""Families that encode a single image differently: their prompts are no sum of their parts."""

needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None,
    reason="needs torchvision, which is not installed: make install",
)
CHOICES: Final = {
    name: pytest.param(name, marks=[needs_torchvision] if family.torchvision else [], id=name)
    for name, family in FAMILIES.items()
}
"""Every family as a parameter of tests."""


def save(family: Family, folder: Path) -> Path:
    """Write a family's tiny checkpoint; equal calls give equal weights."""
    torch.manual_seed(0)
    model, processor = family.build()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
