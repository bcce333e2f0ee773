"""The LoRA mechanism in pure torch: plan targets, create layers, inject, set strength, eject, fuse."""
