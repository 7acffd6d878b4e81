"""VQA accuracy in three conventions, and the normal form of answers."""

from lever_plus.metric.vqa import normalize_answer, vqa_accuracy

__all__ = ["normalize_answer", "vqa_accuracy"]
