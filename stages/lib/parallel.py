"""One training in several processes, as torchrun starts them: each computes its share of every batch, gradients are averaged.

    torchrun --nproc-per-node 2 -m stages.train_baseline mopoe

Batches and random numbers are those of one process: all draw them for the whole batch and take their rows. So a checkpoint
of one number of processes goes on with another. Sums are rounded in another order, which is all that differs.
"""

import contextlib

import torch
from torch import distributed

from stages.lib.runtime import PROCESSES, RANK, UserError

AGREE_EVERY = 10  # steps between two questions whether to stop or to keep a checkpoint


def share(n):
    """The rows of a batch of n that are this process's, a slice; all of them where it is the only one."""
    return slice(n * RANK // PROCESSES, n * (RANK + 1) // PROCESSES)


@contextlib.contextmanager
def together(name, device, size):
    """Inside, the processes of training `name`, batches of `size`, can talk to each other; nothing where there is one alone.

    Raises `UserError` where there are more processes than items in a batch, and in all others when one of them is gone.
    """
    if PROCESSES == 1:
        yield
        return
    if size < PROCESSES:
        raise UserError(f"{name}: a batch of {size} can't be shared by {PROCESSES} processes; start at most {size}")
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise UserError(f"{name}: another process of this training is gone; start it again, it goes on from its checkpoint") from None
        raise
    finally:
        distributed.destroy_process_group()


def in_turn(work):
    """`work()` in the first process and then in the others, which see what it left; its value in each."""
    if PROCESSES > 1 and RANK > 0:
        distributed.barrier()
    value = work()
    if PROCESSES > 1 and RANK == 0:
        distributed.barrier()
    return value


def shared(model, loss, size):
    """`loss(index, progress)` of one process -> the same over all of them, for batches of `size`.

    `loss` has to be the mean over `share(size)` of the batch. What is returned has the gradient of the whole batch's mean once
    DistributedDataParallel has averaged over processes; its parts, "loss" among them, are those of the whole batch.
    """
    if PROCESSES == 1:
        return loss
    mine = share(size)
    weight = (mine.stop - mine.start) / size
    module = torch.nn.Module()
    module.model, module.forward = model, loss
    wrapped = torch.nn.parallel.DistributedDataParallel(module)

    def whole(index, progress):
        value, parts = wrapped(index, progress)
        parts = {"loss": value, **parts}
        numbers = weight * torch.stack([part.detach() for part in parts.values()])
        distributed.all_reduce(numbers)
        return weight * PROCESSES * value, dict(zip(parts, numbers))

    return whole


def agreed(step, *flags):
    """Each of the booleans `flags` as any of the processes has it; where there are several, False but at every tenth step."""
    if PROCESSES == 1:
        return flags
    if step % AGREE_EVERY:
        return [False] * len(flags)
    raised = torch.tensor(flags, dtype=torch.uint8, device="cuda" if distributed.get_backend() == "nccl" else "cpu")
    distributed.all_reduce(raised, distributed.ReduceOp.MAX)
    return raised.bool().tolist()
