"""From a checkpoint to a model bundle that predicts and explains, checked before it is written."""
