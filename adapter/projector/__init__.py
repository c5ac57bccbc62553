"""The flow from the events of a ticket to its current state."""
