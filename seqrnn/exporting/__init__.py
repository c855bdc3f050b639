"""Trained models as files of PyTorch and ONNX, and back."""
