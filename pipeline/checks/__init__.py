"""Checks across sections: settings that cannot work together, or need more items than there are."""
