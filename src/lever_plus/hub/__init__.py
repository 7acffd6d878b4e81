"""Hugging Face folders by path: strict loading, identity, and fast linear layers."""
