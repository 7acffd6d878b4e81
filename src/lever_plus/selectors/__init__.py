"""Selectors: what chooses demonstrations for a query, learned or not."""
