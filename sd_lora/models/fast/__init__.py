"""Faster ways to compute what a frozen base model computes; each is checked by its gradients before it is used."""
