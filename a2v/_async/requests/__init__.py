"""The requests of a client: what is sent, when, and what comes back."""
