"""Counts of a stage's requests to the VLM, for the progress bar and for MLflow."""

from dataclasses import dataclass


@dataclass
class Usage:
    """Counts of one stage's requests to the VLM.

    Attributes:
        requests: Distinct requests, including those that the store answered.
        hits: Requests that the store answered.
        empty: Answers that are empty or white space; see `scoring/empty_answers` in the glossary.
        seconds: Time spent on requests, in the VLM and in the store.
        tokens_whole: Prompt tokens of the requests to the VLM, each prompt counted whole.
        tokens_run: Prompt tokens that were computed; sharing prefixes, here or in a server's cache,
            saved the others.
        likelihoods: The way in which a server computed likelihoods; "" if it did not.
    """

    requests: int = 0
    hits: int = 0
    empty: int = 0
    seconds: float = 0.0
    tokens_whole: int = 0
    tokens_run: int = 0
    likelihoods: str = ""

    @property
    def saved(self) -> float:
        """Share of prompt tokens that sharing prefixes saved, in [0, 1]."""
        return 1 - self.tokens_run / self.tokens_whole if self.tokens_whole else 0.0

    def figures(self) -> dict[str, float]:
        """Return the figures by their names in MLflow."""
        rate = self.requests / self.seconds if self.seconds else 0.0
        return {
            "scoring/requests": self.requests,
            "scoring/store_hits": self.hits,
            "scoring/empty_answers": self.empty,
            "scoring/answers_per_s": rate,
            "scoring/tokens_saved": self.saved,
        }

    def describe(self) -> str:
        """Return the figures as the end of a sentence."""
        if not self.requests:
            return "the VLM was not asked"
        parts = [f"{self.requests:,} requests", f"{self.hits / self.requests:.0%} from the store"]
        if self.seconds:
            parts.append(f"{self.requests / self.seconds:,.0f}/s")
        if self.tokens_whole:
            parts.append(f"{self.saved:.0%} of the tokens saved")
        if self.likelihoods:
            parts.append(f"likelihoods by {self.likelihoods}")
        if self.empty:
            parts.append(f"{self.empty:,} empty answers")
        return ", ".join(parts)
