"""Recurrent networks on sequences of symbols, in JAX and Flax."""
