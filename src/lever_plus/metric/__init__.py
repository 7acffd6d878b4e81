"""Official VQA accuracy and its normal form of answers, in three conventions."""

from lever_plus.metric.vqa import normalize_answer, vqa_accuracy

__all__ = ["normalize_answer", "vqa_accuracy"]
