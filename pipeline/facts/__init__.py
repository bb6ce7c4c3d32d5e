"""What was found: outputs of the stages as words and figures, which report, card, comparison and docs draw."""
