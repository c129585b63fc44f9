"""The registration: its plan, its stages in their order, and what they share."""
