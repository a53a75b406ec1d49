"""`trainer/train.py`, killed by the kernel at a chosen moment of writing a checkpoint: MOMENT STEP FLAG...

Within the write of a file, the kernel kills the process inside the call of write(2) that would make the file longer
than a limit (SIGXFSZ); between writes the process sends itself SIGKILL. Nothing is closed, flushed or removed then.
"""

import os
import pathlib
import resource
import signal
import sys
from unittest import mock

MOMENTS = ("tensors", "before the merge", "index", "before the record", "deletion of the oldest")
_BYTES = {"tensors": 300_000, "index": 20_000}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_byte(limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def arm(moment: str) -> None:
    """Makes the write of a checkpoint that begins now the last thing this process does."""
    from tensorflow.python.checkpoint import checkpoint_management, functional_saver

    merge = functional_saver.gen_io_ops.merge_v2_checkpoints

    def merged(*args, **kwargs):
        if moment == "before the merge":
            die()
        if moment == "index":
            die_at_byte(_BYTES[moment])
        merge(*args, **kwargs)
        if moment == "before the record":
            die()

    if moment == "tensors":
        die_at_byte(_BYTES[moment])
    elif moment == "deletion of the oldest":
        delete = checkpoint_management._delete_file_if_exists
        mock.patch.object(checkpoint_management, "_delete_file_if_exists", lambda files: (delete(files), die())).start()
    else:
        mock.patch.object(functional_saver.gen_io_ops, "merge_v2_checkpoints", merged).start()


def main(moment: str, step: int, flags: list) -> None:
    import runpy

    from deeplab2_kmax.training.checkpoints import checkpointing

    write = checkpointing.RunCheckpoints._write

    def armed(self, now, options):
        if now == step:
            arm(moment)
        return write(self, now, options)

    checkpointing.RunCheckpoints._write = armed
    program = str(pathlib.Path(__file__).parents[2] / "trainer/train.py")
    sys.argv = [program, *flags]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
