"""The `lever-plus` command: thin; every command calls one room."""
