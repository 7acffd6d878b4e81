"""Plain batches: whole prompts through processor and model; works for any VLM.

Prompts are padded on the left. For likelihoods the token ids of the answer are appended to those of
the prompt, so that exactly the answer is scored, whatever the tokenizer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lever_plus.data.examples import Example, Query, check_images
from lever_plus.data.images import open_image
from lever_plus.hub.processing import on_device, process
from lever_plus.vlm.engine.length import check_lengths, positions
from lever_plus.vlm.prompt import PromptFormat, render
from lever_plus.vlm.request import Request, scored_answer
from lever_plus.vlm.turns import turn


class BatchEngine:
    """Runs whole prompts on one model; nothing is shared between them."""

    def __init__(self, model: Any, processor: Any, prompt: PromptFormat) -> None:
        """Take the model, and what prompts are made with."""
        self._model, self._processor, self._prompt = model, processor, prompt
        self._most = positions(model)

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[Request], max_new_tokens: int, num_beams: int = 1
    ) -> list[list[int]]:
        """Return the generated token ids of each request, including end-of-turn tokens."""
        inputs = on_device(self._model, self.inputs(requests))
        output = self._model.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=num_beams
        )
        new: list[list[int]] = output[:, inputs["input_ids"].shape[1] :].tolist()
        return new

    @torch.inference_mode()
    def log_likelihoods(self, requests: Sequence[Request]) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer."""
        answers = [torch.tensor(self._answer(request)) for request in requests]
        counts = torch.tensor([len(answer) for answer in answers])
        padded = pad_sequence(answers, batch_first=True)
        inputs = on_device(self._model, forced(self.inputs(requests), padded, counts))
        steps = padded.shape[1]
        logits = self._model(**inputs, logits_to_keep=steps, use_cache=False).logits
        log_probs = logits[:, -steps:].float().log_softmax(-1)
        picked = log_probs.gather(-1, padded.to(log_probs.device)[..., None]).squeeze(-1).cpu()
        picked = picked.masked_fill(torch.arange(steps) >= counts[:, None], 0.0)
        scores: list[float] = (picked.sum(-1) / counts).tolist()
        return scores

    def inputs(self, requests: Sequence[Request]) -> dict[str, Tensor]:
        """Return the model inputs of whole prompts, padded on the left.

        Raises:
            UserError: A text cannot be in a prompt, an image cannot be read, or a prompt is longer
                than the model can read.
        """
        texts = [render(self._processor, r.demonstrations, r.query, self._prompt) for r in requests]
        check_images(example for request in requests for example in request.demonstrations)
        check_images(request.query for request in requests)
        images = [[open_image(path) for path in request.images] for request in requests]
        inputs = process(self._processor, texts, images, "left")
        check_lengths(requests, inputs["attention_mask"].sum(-1), self._most)
        return inputs

    def tokens(self, query: Query) -> int:
        """Return how many tokens a query adds to a prompt, its image included."""
        return int(self.inputs([Request((), query)])["input_ids"].shape[1])

    def _answer(self, request: Request) -> list[int]:
        """Return the token ids of the answer that a request scores."""
        query = request.query
        example = Example(query.image, query.question, scored_answer(request))
        return turn(self._processor, example, self._prompt).answer


def forced(inputs: Mapping[str, Tensor], answers: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """Append answers to prompts for teacher forcing; an answer's last token predicts nothing.

    Args:
        inputs: Model inputs of n prompts, padded on the left. Tensors with one value per token get
            longer.
        answers: Int [n, longest], token ids of the answers, padded on the right.
        counts: Int [n], number of tokens of each answer.
    """
    extra = answers[:, :-1]
    real = torch.arange(extra.shape[1]) < (counts - 1)[:, None]
    grown = {"input_ids": extra, "attention_mask": real.long()}
    shape = inputs["input_ids"].shape
    return {
        name: torch.cat([value, grown.get(name, torch.zeros_like(extra)).to(value.dtype)], dim=1)
        if value.shape == shape
        else value
        for name, value in inputs.items()
    }
