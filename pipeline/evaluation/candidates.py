"""Which items a ranking ranks, as protocols name them."""

ALL, COLD = "all items", "cold items alone"
"""cold items are those of valid, or of test, that train lacks"""
