"""The server of `lever-plus serve`: selections, and demonstrations put into chats."""
