"""The values that users pass and receive, and the checks of arguments: no I/O."""
