"""The `lever-plus` command line. It is thin: each command calls functions of another package."""
