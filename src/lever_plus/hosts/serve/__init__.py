"""A server of its own: selections, and learned demonstrations in the chats of a VLM server."""
