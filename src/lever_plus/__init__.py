"""Lever-Plus: learn which in-context demonstrations a frozen vision-language model should see."""
