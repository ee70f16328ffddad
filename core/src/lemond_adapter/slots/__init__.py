"""Slots: their state folded from events, their rows as hal0 reads them."""
