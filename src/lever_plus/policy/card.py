"""The model card of a checkpoint: what anyone who finds the folder must know."""

from typing import Any

from lever_plus.files.names import SHIPPED

LIMITS = """- It chooses demonstrations; it answers no question itself. What it chooses may lead
  the VLM to a wrong answer.
- It was trained for the VLM and the prompt above. With others it may help less, or not at all:
  measure it (`lever_plus.evaluate`).
- It needs the encoder above, by hash; another one is refused."""


def card(facts: dict[str, Any], parameters: int) -> str:
    """Return the card as Markdown.

    Args:
        facts: The content of config.json.
        parameters: Number of weights of the policy.
    """
    vlm, architecture = facts["vlm"], facts["architecture"]
    trained = "".join(f"- {name}: {value}\n" for name, value in sorted(facts["training"].items()))
    encoder = str(facts["encoder"]["path"])
    shipped = encoder.startswith(SHIPPED)
    place = "" if shipped else ', encoder="PATH OF THE ENCODER"'
    where = f", shipped with the package as {encoder}" if shipped else ""
    prompt = ", ".join(f"{name} {value!r}" for name, value in sorted(facts["prompt"].items()))
    return f"""# A demonstration selector

A pointer policy that picks up to {architecture["shots"]} in-context demonstrations for a frozen
vision-language model, one after the other, from any pool of examples.

```python
from lever_plus import Query, load_selector, read_pool

selector = load_selector("PATH OF THIS FOLDER"{place})
chosen = selector.select(Query("photo.jpg", "What is it?"), read_pool("pool.jsonl"), 2)
```

## Made for

- VLM: {vlm["model"]}, revision {vlm["revision"]}, {vlm["dtype"]}
- prompt: {prompt} (hash {vlm["prompt_hash"]})
- generation: {vlm["generation"]}

## Needs

- encoder: sha256 {facts["encoder"]["sha256"]}{where}
- feature space: sha256 {facts["feature_space"]} (in this folder)

## Network

- kind: {architecture["kind"]}, {parameters:,} parameters

## Training

{trained}- pools: sha256 {facts["pool_sha256"]}

## Limits

{LIMITS}
"""
