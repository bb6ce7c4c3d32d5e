"""The tests lie as the packages do; what they share lies here."""
