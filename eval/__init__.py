"""Commands that ask models and score what they say, and the rooms behind them."""
