"""What a trained model says: scores, predictions, samples, figures."""
