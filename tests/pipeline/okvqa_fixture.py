"""Forty questions in OK-VQA's format: files, COCO image names, and drawn images."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"red": (200, 30, 30), "blue": (30, 60, 200), "green": (30, 150, 60)}
SIZES = {"train": 28, "val": 12}
QUESTIONS_AN_IMAGE = 2
PRESET = """
data:
  source:
    kind: vqa_files
    root: {root}
    answers_per_question: 10
    allow_fallback: false
    train:
      questions: OpenEnded_mscoco_train2014_questions.json
      annotations: mscoco_train2014_annotations.json
      images: train2014
      image_name: "COCO_train2014_{{image_id:012d}}.jpg"
      sample: null
    dev: {{held_out: 6}}
    test:
      questions: OpenEnded_mscoco_val2014_questions.json
      annotations: mscoco_val2014_annotations.json
      images: val2014
      image_name: "COCO_val2014_{{image_id:012d}}.jpg"
      sample: null
  rl_queries: 10
  sft_queries: 5
  near_duplicate_bits: 2
pool: {{size: 6, sampler: mixed, scarcity: 0.0}}
vlm:
  path: {vlm}
  prompt: {{instruction: "Answer in one word."}}
  max_new_tokens: 2
  batch_tokens: 4000
embed: {{path: {clip}}}
pointer: {{shots: 2}}
reward: {{shot_weights: [0.5, 0.5]}}
sft_data: {{beam: 2, shots: 2}}
rl: {{min_informative: 0.0}} # the model is random
evaluate: {{random_seeds: 2, oracle_queries: 6, oracle_beam: 1, resamples: 200}}
"""


def make_files(root: Path) -> None:
    """Write questions, annotations and images of both splits."""
    rng = np.random.default_rng(0)
    for number, (split, size) in enumerate(SIZES.items(), start=1):
        (root / f"{split}2014").mkdir(parents=True)
        questions, annotations = [], []
        for index in range(size):
            image_id = 1000 * number + index // QUESTIONS_AN_IMAGE
            colour = list(COLOURS)[image_id % len(COLOURS)]
            question_id = image_id * 10 + index % QUESTIONS_AN_IMAGE
            draw(root / f"{split}2014" / f"COCO_{split}2014_{image_id:012d}.jpg", colour, rng)
            asked = ("What colour is the shape?", "Which ink was used?")[index % 2]
            ids = {"image_id": image_id, "question_id": question_id}
            questions.append({**ids, "question": asked})
            answers = [
                {
                    "answer_id": i,
                    "raw_answer": colour,
                    "answer_confidence": "yes",
                    "answer": colour if i < 8 else "grey",
                }
                for i in range(1, 11)
            ]
            annotations.append({**ids, "answers": answers, "question_type": "other"})
        head = {"info": {}, "task_type": "Open-Ended", "data_type": "mscoco", "license": {}}
        for name, key, rows in (
            (f"OpenEnded_mscoco_{split}2014_questions.json", "questions", questions),
            (f"mscoco_{split}2014_annotations.json", "annotations", annotations),
        ):
            (root / name).write_text(json.dumps({**head, key: rows}), encoding="utf-8")


def draw(path: Path, colour: str, rng: np.random.Generator) -> None:
    image = Image.new("RGB", (96, 72), (240, 240, 240))
    left, top = (int(x) for x in rng.integers(5, 40, size=2))
    ImageDraw.Draw(image).ellipse((left, top, left + 40, top + 25), fill=COLOURS[colour])
    image.save(path)
