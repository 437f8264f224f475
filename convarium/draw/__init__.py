"""Figures of networks and of numbers, as text that a page can hold."""
