"""What asking the VLM cost so far: the figures of the progress bar, and of MLflow."""

from dataclasses import dataclass


@dataclass
class Usage:
    """Counts of one stage.

    Attributes:
        requests: Distinct requests, those that the store answered included.
        hits: Requests that the store answered.
        empty: Answers without a letter; see `scoring/empty_answers` in the glossary.
        seconds: Time spent waiting for the VLM and the store.
        tokens_whole: Prompt tokens of the requests that were asked, each prompt counted whole.
        tokens_run: Tokens that were really run; the difference was saved by sharing prefixes, here
            or in a server's cache.
        likelihoods: How a server was asked for likelihoods; "" if it was not.
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
        """Return what is logged: names as in MLflow."""
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
