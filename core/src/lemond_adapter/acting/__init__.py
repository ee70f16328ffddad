"""Acting on lemond: loads and unloads, one at a time, and how long they will take."""
