"""Write, describe, verify and read release folders."""
