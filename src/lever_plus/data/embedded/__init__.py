"""The embedded data set (house words): its vocabulary, its cards, and the maker of its files."""
