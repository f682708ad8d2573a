"""The client: the only room that talks HTTP."""
