"""GPUs for FAISS, with the package faiss-gpu-cu12."""

import logging

import faiss
import torch

MOST_NEIGHBOURS = 2048  # that a search on a GPU returns
SHARE = 0.5  # of the free memory that an index may take; the rest is for searching, and for lists that grow
SCRATCH = 256 * 2**20  # bytes that a search may use besides
LOG = logging.getLogger(__name__)


def count() -> int:
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def placed(index: faiss.Index, rows: int, k: int) -> faiss.Index:
    """Return a copy of an IndexFlat, sharded over the GPUs; the index itself if it does not fit or there is none."""
    gpus = count()
    if not gpus:
        return index
    needed, room = rows * (4 * index.d + 8), SHARE * gpus * min(torch.cuda.mem_get_info(n)[0] for n in range(gpus))
    if needed + gpus * SCRATCH > room:
        LOG.warning("an index of %.1f GiB is too large for the GPU's free memory; it stays on the CPU", needed / 2**30)
        return index
    if k > MOST_NEIGHBOURS:
        LOG.warning("a GPU returns %d neighbours at most; the index stays on the CPU", MOST_NEIGHBOURS)
        return index
    resources = [faiss.StandardGpuResources() for _ in range(gpus)]
    for one in resources:
        one.setTempMemory(SCRATCH)
    if gpus == 1:
        return faiss.index_cpu_to_gpu(resources[0], 0, index)
    options = faiss.GpuMultipleClonerOptions()
    options.shard = True
    return faiss.index_cpu_to_gpu_multiple_py(resources, index, options, list(range(gpus)))
