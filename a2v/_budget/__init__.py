"""The stores of shared budgets: a file for the processes of one machine, Redis across machines, memory for tests."""
