"""How fast the kit is: ratios against what people use today, measured in one run."""
