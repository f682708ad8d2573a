"""What the protocol means: no I/O, no clock, no HTTP library."""
