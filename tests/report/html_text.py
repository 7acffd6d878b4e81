"""What a reader of an HTML page sees: its texts, and how deep its tables are folded."""

from html.parser import HTMLParser

UNSEEN = ("script", "style", "title", "noscript")


class Page(HTMLParser):
    """A page that was read.

    Attributes:
        texts: What is visible once all folds are open, in order.
        table_folds: Of every table, how many folds it is in.
    """

    def __init__(self, html: str) -> None:
        """Read a page."""
        super().__init__()
        self.texts: list[str] = []
        self.table_folds: list[int] = []
        self._unseen, self._folds = 0, 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Count folds and tables."""
        del attrs
        self._unseen += tag in UNSEEN
        self._folds += tag == "details"
        if tag == "table":
            self.table_folds.append(self._folds)

    def handle_endtag(self, tag: str) -> None:
        """Leave a fold."""
        self._unseen -= tag in UNSEEN
        self._folds -= tag == "details"

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        if not self._unseen and data.strip():
            self.texts.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        """All texts, one a line."""
        return "\n".join(self.texts)
