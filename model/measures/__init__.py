"""How good a detector is and how sure that is: metrics, proportions, tails, splits, synthetic defects, baselines."""
