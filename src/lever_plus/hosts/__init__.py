"""A trained selector inside other people's programs; each needs an extra, and only when used."""
