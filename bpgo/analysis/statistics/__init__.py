"""From collected scores to statistics: means, intervals, differences, curves, claims."""
