"""One run: splits, data stream, loop, evaluation, checkpoint."""
