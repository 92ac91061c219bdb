"""What a model does, during a trial and behind it: measurements that leave the training as it is."""

from .observer import Observer

__all__ = ["Observer"]
