"""What a run will take, before anything runs: hours, memory and disk of each stage, and whether addresses answer."""
