"""What can be learned: each task draws its data, computes its losses, and judges the result."""

from lensdeblend.training.tasks.task import Task
from lensdeblend.training.tasks.registry import task, tasks

__all__ = ["Task", "task", "tasks"]
