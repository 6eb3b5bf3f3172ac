"""From statistics to figures: PDF and PNG."""
