"""Recommenders that read a user's items in order, judged by leave-one-out."""
