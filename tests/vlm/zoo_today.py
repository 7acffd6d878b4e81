"""Tiny checkpoints of recent model families, each with the features that are special about it.

These are image features in several layers, recurrent layers, sliding windows, image tokens that
attend to one another, and numbered tiles. Their processors need torchvision, if only for videos.
"""

from typing import Any

import transformers as hf

from vlm.zoo_parts import CHATML, HEADS, TEXT, VISION, WIDTH, finish, ids, template, tokenizer

VISION_MARKS = (
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    *("<|im_start|>", "<|im_end|>"),
)
THINKS_UNLESS_TOLD = (
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}"
)
PLAIN_VISION = {name: value for name, value in VISION.items() if name != "initializer_range"}


def chatml(image: str, generation: str = "") -> str:
    """Return a template of turns between <|im_start|> and <|im_end|>."""
    start = f"<|im_start|>assistant\n{generation}"
    return template(image, CHATML, "<|im_end|>\n", start, bos="")


def patch_processors(patch: int) -> dict[str, Any]:
    """Return processors of images and videos that keep the shape: 4 to 16 tokens an image."""
    pixels = {"shortest_edge": (patch * 4) ** 2, "longest_edge": (patch * 8) ** 2}
    sizes: dict[str, Any] = {"patch_size": patch, "merge_size": 2, "size": pixels}
    return {
        "image_processor": hf.Qwen2VLImageProcessorPil(**sizes),
        "video_processor": hf.Qwen3VLVideoProcessor(**sizes),
    }


def vision_marks(tok: Any) -> dict[str, int]:
    """Return the ids of the marks around images that Qwen's configurations name."""
    token = tok.convert_tokens_to_ids
    return {
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
    }


def qwen_vision(**more: Any) -> dict[str, Any]:
    """Return the configuration of Qwen's vision tower with 8-pixel patches."""
    return {
        "depth": 2,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_heads": HEADS,
        "patch_size": 8,
        "spatial_merge_size": 2,
        "out_hidden_size": WIDTH,
        "num_position_embeddings": 64,
        "initializer_range": 0.3,
        **more,
    }


def mrope(**more: Any) -> dict[str, Any]:
    """Return positions in three dimensions, interleaved, for heads of width 8."""
    sections = {"mrope_section": [2, 1, 1], "mrope_interleaved": True}
    return {"rope_type": "default", "rope_theta": 10000.0, **sections, **more}


def qwen3_vl() -> tuple[Any, Any]:
    """Qwen3-VL: features of images enter the first layers of the language model too."""
    tok = tokenizer(*VISION_MARKS)
    text = {**TEXT, "num_hidden_layers": 3, "head_dim": 8, "rope_parameters": mrope()}
    config = hf.Qwen3VLConfig(
        text_config={**text, "vocab_size": len(tok), "pad_token_id": tok.pad_token_id},
        vision_config=qwen_vision(depth=3, deepstack_visual_indexes=[0, 1]),
        **vision_marks(tok),
    )
    processor = hf.Qwen3VLProcessor(
        **patch_processors(8),
        tokenizer=tok,
        chat_template=chatml("<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return finish(hf.Qwen3VLForConditionalGeneration(config), tok, "<|im_end|>"), processor


def linear_attention(tok: Any) -> dict[str, Any]:
    """Return the configuration of Qwen3.5's language model: few of its layers have attention."""
    return {
        **TEXT,
        **ids(tok),
        "head_dim": 8,
        "layer_types": ["full_attention", "linear_attention"],
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "rope_parameters": mrope(partial_rotary_factor=1.0),
    }


def qwen3_5() -> tuple[Any, Any]:
    """Qwen3.5: recurrent layers; its template thinks unless it is told not to."""
    tok = tokenizer(*VISION_MARKS, "<think>", "</think>")
    config = hf.Qwen3_5Config(
        text_config=linear_attention(tok), vision_config=qwen_vision(), **vision_marks(tok)
    )
    processor = hf.Qwen3VLProcessor(
        **patch_processors(8),
        tokenizer=tok,
        chat_template=chatml("<|vision_start|><|image_pad|><|vision_end|>", THINKS_UNLESS_TOLD),
    )
    return finish(hf.Qwen3_5ForConditionalGeneration(config), tok, "<|im_end|>"), processor


def gemma4() -> tuple[Any, Any]:
    """Gemma 4: embeddings for each layer, windows, image tokens that see one another."""
    named = {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
    }
    tok = tokenizer("<|turn>", "<turn|>", "<|video|>", **named)
    token = tok.convert_tokens_to_ids
    text = hf.Gemma4TextConfig(
        **{**TEXT, **ids(tok), "num_hidden_layers": 3, "head_dim": 8},
        global_head_dim=8,
        sliding_window=64,
        layer_types=["sliding_attention", "full_attention", "full_attention"],
        use_bidirectional_attention="vision",
        vocab_size_per_layer_input=len(tok),
        hidden_size_per_layer_input=8,
        num_kv_shared_layers=0,
    )
    vision = hf.Gemma4VisionConfig(
        **VISION,
        num_key_value_heads=HEADS,
        head_dim=8,
        patch_size=8,
        pooling_kernel_size=2,
        position_embedding_size=256,
    )
    config = hf.Gemma4Config(
        text_config=text,
        vision_config=vision,
        audio_config=None,
        **{f"{name}_id": token(named[name]) for name in ("boi_token", "eoi_token", "image_token")},
        audio_token_id=token("<|audio|>"),
        video_token_id=token("<|video|>"),
    )
    sizes: dict[str, Any] = {"patch_size": 8, "max_soft_tokens": 70, "pooling_kernel_size": 2}
    role = "{{ 'model' if m['role'] == 'assistant' else m['role'] }}"
    processor = hf.Gemma4Processor(
        feature_extractor=hf.Gemma4AudioFeatureExtractor(),
        image_processor=hf.Gemma4ImageProcessorPil(**sizes),
        video_processor=hf.Gemma4VideoProcessor(**sizes),
        tokenizer=tok,
        image_seq_length=70,
        chat_template=template("<|image|>", f"<|turn>{role}\n", "<turn|>\n", "<|turn>model\n"),
    )
    return finish(hf.Gemma4ForConditionalGeneration(config), tok, "<turn|>"), processor


def internvl() -> tuple[Any, Any]:
    """InternVL: tiles, pixel shuffle and Qwen2."""
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tok = tokenizer("<|im_start|>", "<|im_end|>", **named)
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**VISION, image_size=[32, 32], patch_size=[8, 8]),
        text_config=hf.Qwen2Config(**TEXT, **ids(tok)),
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    square = {"height": 32, "width": 32}
    processor = hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessorPil(
            size=square, crop_to_patches=True, min_patches=1, max_patches=3
        ),
        video_processor=hf.InternVLVideoProcessor(size=square),
        tokenizer=tok,
        image_seq_length=4,
        chat_template=chatml("<IMG_CONTEXT>\n"),
    )
    return finish(hf.InternVLForConditionalGeneration(config), tok, "<|im_end|>"), processor


def lfm3_vl() -> tuple[Any, Any]:
    """LFM3-VL: a language model of convolutions, windows and attention."""
    tok = tokenizer(*VISION_MARKS)
    text = hf.Lfm3Config(
        **{**TEXT, **ids(tok), "num_hidden_layers": 3, "head_dim": 8},
        layer_types=["conv", "full_attention", "sliding_attention"],
        sliding_window=64,
    )
    config = hf.Lfm3VlConfig(
        text_config=text,
        vision_config={
            **VISION,
            "num_key_value_heads": HEADS,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "layer_types": ["conv", "full_attention"],
        },
        projector_hidden_size=WIDTH,
        **vision_marks(tok),
    )
    processor = hf.Lfm3VlProcessor(
        **patch_processors(8),
        tokenizer=tok,
        chat_template=chatml("<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return finish(hf.Lfm3VlForConditionalGeneration(config), tok, "<|im_end|>"), processor


def minicpmv4_6() -> tuple[Any, Any]:
    """MiniCPM-V 4.6: images are numbered in the prompt and cut into slices; Qwen3.5's text."""
    named = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "image_start_token": "<image>",
        "image_end_token": "</image>",
        "slice_start_token": "<slice>",
        "slice_end_token": "</slice>",
        "image_id_start_token": "<image_id>",
        "image_id_end_token": "</image_id>",
    }
    tok = tokenizer("<|im_start|>", "<|im_end|>", "<think>", "</think>", **named)
    text = linear_attention(tok)
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    config = hf.MiniCPMV4_6Config(
        text_config={"model_type": "qwen3_5_text", **text},
        vision_config={
            **PLAIN_VISION,
            "image_size": 64,
            "patch_size": 8,
            "window_kernel_size": [2, 2],
        },
        insert_layer_id=0,
        image_size=64,
        image_token_id=tok.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tok.convert_tokens_to_ids("<|video_pad|>"),
    )
    sizes: dict[str, Any] = {"max_slice_nums": 2, "scale_resolution": 64, "patch_size": 8}
    processor = hf.MiniCPMV4_6Processor(
        image_processor=hf.MiniCPMV4_6ImageProcessorPil(**sizes),
        video_processor=hf.MiniCPMV4_6VideoProcessor(**sizes),
        tokenizer=tok,
        chat_template=chatml("<|image_pad|>\n", THINKS_UNLESS_TOLD),
    )
    return finish(hf.MiniCPMV4_6ForConditionalGeneration(config), tok, "<|im_end|>"), processor


def molmo2() -> tuple[Any, Any]:
    """Molmo2: crops that overlap; image tokens see those of every image."""
    marks = (
        *("<im_patch>", "<im_col>", "<im_start>", "<im_end>", "<im_low>", "<low_res_im_start>"),
        *("<frame_start>", "<frame_end>", "<|image|>", "<|video|>", "<|im_start|>", "<|im_end|>"),
    )
    tok = tokenizer(*marks)
    token = tok.convert_tokens_to_ids
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": 8}
    config = hf.Molmo2Config(
        vision_config={**VISION, **heads, "image_size": [32, 32], "patch_size": 8},
        adapter_config={
            **heads,
            "hidden_size": WIDTH,
            "intermediate_size": 48,
            "text_hidden_size": WIDTH,
            "vision_feature_layer": [1, 0],
            "initializer_range": 0.3,
        },
        text_config={
            **TEXT,
            **ids(tok),
            "head_dim": 8,
            "additional_vocab_size": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        image_start_token_id=token("<im_start>"),
        low_res_image_start_token_id=token("<low_res_im_start>"),
        image_end_token_id=token("<im_end>"),
        image_patch_id=token("<im_patch>"),
        frame_start_token_id=token("<frame_start>"),
        frame_end_token_id=token("<frame_end>"),
    )
    processor = hf.Molmo2Processor(
        image_processor=hf.Molmo2ImageProcessor(
            size={"height": 32, "width": 32}, patch_size=8, max_crops=2, overlap_margins=[1, 1]
        ),
        video_processor=hf.Molmo2VideoProcessor(size={"height": 32, "width": 32}, patch_size=8),
        tokenizer=tok,
        chat_template=template("<|image|>", CHATML, "<|im_end|>\n", "<|im_start|>assistant\n"),
    )
    return finish(hf.Molmo2ForConditionalGeneration(config), tok, "<|im_end|>"), processor


def glm46v() -> tuple[Any, Any]:
    """GLM-4.6V: positions in three dimensions; it thinks unless its template is told not to."""
    marks = (
        *("<|begin_of_image|>", "<|image|>", "<|end_of_image|>", "<|begin_of_video|>"),
        *("<|video|>", "<|end_of_video|>", "<|user|>", "<|assistant|>", "<think>", "</think>"),
    )
    tok = tokenizer(*marks)
    token = tok.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    text = {**TEXT, "vocab_size": len(tok), "pad_token_id": tok.pad_token_id}
    config = hf.Glm46VConfig(
        text_config={"model_type": "glm4v_text", **text, "rope_parameters": rope},
        vision_config={
            "model_type": "glm4v_vision",
            "depth": 2,
            "hidden_size": WIDTH,
            "intermediate_size": 48,
            "num_heads": HEADS,
            "image_size": 64,
            "patch_size": 8,
            "out_hidden_size": WIDTH,
            "initializer_range": 0.3,
        },
        image_token_id=token("<|image|>"),
        video_token_id=token("<|video|>"),
        image_start_token_id=token("<|begin_of_image|>"),
        image_end_token_id=token("<|end_of_image|>"),
        video_start_token_id=token("<|begin_of_video|>"),
        video_end_token_id=token("<|end_of_video|>"),
    )
    pixels = {"shortest_edge": 2 * 32**2, "longest_edge": 2 * 64**2}
    sizes: dict[str, Any] = {"patch_size": 8, "merge_size": 2, "size": pixels}
    image, nothing = "<|begin_of_image|><|image|><|end_of_image|>", "<think></think>\n"
    processor = hf.Glm46VProcessor(
        image_processor=hf.Glm46VImageProcessorPil(**sizes),
        video_processor=hf.Glm46VVideoProcessor(**sizes),
        tokenizer=tok,
        chat_template=template(
            image,
            f"<|{{{{ m['role'] }}}}|>\n{{% if m['role'] == 'assistant' %}}{nothing}{{% endif %}}",
            "",
            f"<|assistant|>\n{{% if enable_thinking is false %}}{nothing}{{% endif %}}",
            bos="<s>",
        ),
    )
    model = hf.Glm46VForConditionalGeneration(config)
    return finish(model, tok, "<|user|>"), processor


def granite4_vision() -> tuple[Any, Any]:
    """Granite Vision 4: several views of an image; its features enter several layers."""
    marks = ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>")
    tok = tokenizer("<image>", *marks)
    wide, grid = 64, [[32, 64], [64, 32]]
    config = hf.Granite4VisionConfig(
        vision_config=hf.SiglipVisionConfig(
            **{**PLAIN_VISION, "hidden_size": wide},
            image_size=32,
            patch_size=8,
            vision_use_head=False,
        ),
        text_config={**TEXT, **ids(tok)},
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
        vision_feature_select_strategy="full",
        downsample_rate="2/4",
        deepstack_layer_map=[[-1, 0]],
        spatial_target_layers=[0, 0, 1, 1],
        qformer_config={
            "model_type": "blip_2_qformer",
            "vocab_size": 8,
            "num_hidden_layers": 1,
            "intermediate_size": 48,
            "max_position_embeddings": 8,
        },
    )
    processor = hf.Granite4VisionProcessor(
        image_processor=hf.LlavaNextImageProcessorPil(
            size={"height": 32, "width": 32},
            crop_size={"height": 32, "width": 32},
            image_grid_pinpoints=grid,
        ),
        tokenizer=tok,
        patch_size=8,
        vision_feature_select_strategy="full",
        downsample_rate="2/4",
        chat_template=template(
            "<image>\n",
            "<|start_of_role|>{{ m['role'] }}<|end_of_role|>",
            "<|end_of_text|>\n",
            "<|start_of_role|>assistant<|end_of_role|>",
            bos="",
        ),
    )
    model = hf.Granite4VisionForConditionalGeneration(config)
    return finish(model, tok, "<|end_of_text|>"), processor


def ovis2() -> tuple[Any, Any]:
    """Ovis2: images as distributions over words of their own; marks around tiles are learned."""
    indicators = ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]
    tok = tokenizer("<image>", "<IMG_ATOM>", *indicators, "<|im_start|>", "<|im_end|>")
    config = hf.Ovis2Config(
        vision_config={**VISION, "image_size": 32, "patch_size": 8, "hidden_stride": 2}
        | {"vocab_size": 24},
        text_config=hf.Qwen2Config(**TEXT, **ids(tok)),
        image_token_id=tok.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=tok.convert_tokens_to_ids(indicators),
        vocab_size=len(tok),
        hidden_size=WIDTH,
    )
    processor = hf.Ovis2Processor(
        image_processor=hf.Ovis2ImageProcessorPil(
            size={"height": 32, "width": 32}, crop_to_patches=True, max_patches=3
        ),
        tokenizer=tok,
        image_seq_length=4,
        chat_template=chatml("<image>\n"),
    )
    return finish(hf.Ovis2ForConditionalGeneration(config), tok, "<|im_end|>"), processor
