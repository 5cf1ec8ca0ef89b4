"""Devices and processes: the only module that knows `pmap` and `jax.distributed`.

The state is replicated, not stacked: each device holds a whole copy. A batch is split over the
devices of all processes, and each process feeds its own rows. The functions given to `make_update`
and `make_evaluate` average gradients and metrics over `AXIS` themselves, with `lax.pmean` of the
gradient of the local loss; the gradient of a mean over devices would differ from one to the next.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxstyle.errors import UserError
from jaxstyle.training import meeting
from jaxstyle.training.config import TrainConfig

# The axis of the devices, which collectives name.
AXIS = "devices"


# Processes


def initialize(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = 300,
) -> None:
    """Joins the processes of a run, before anything touches a device.

    With nothing given it joins where the environment says that there are several (a TPU pod, Slurm,
    Open MPI, Kubernetes with the package `kubernetes`), and does nothing elsewhere.

    Args:
        coordinator: `HOST:PORT` of process 0, where it listens.
        num_processes: how many processes there are.
        process_id: which of them this one is, from 0.
        timeout: seconds to wait for the others.

    Raises:
        UserError: some of the three are missing or out of range, or the processes do not meet.
    """
    given = (coordinator, num_processes, process_id)
    if all(value is None for value in given):
        if _cloud(os.environ) is not None:
            _join(initialization_timeout=timeout)
        return
    if coordinator is None or num_processes is None or process_id is None:
        raise UserError(
            "--coordinator, --num-processes and --process-id go together; got "
            f"{coordinator}, {num_processes} and {process_id}"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--coordinator must be HOST:PORT, as 10.0.0.1:1234; got {coordinator!r}")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process-id must be from 0 to {num_processes - 1}, below --num-processes "
            f"{num_processes}; got {process_id}"
        )
    name = host.strip("[]")
    meeting.meet(name, int(port), count=num_processes, index=process_id, timeout=timeout)
    _join(
        coordinator_address=coordinator,
        num_processes=num_processes,
        process_id=process_id,
        cluster_detection_method="deactivate",
        initialization_timeout=timeout,
        # Else process 0 would listen to the whole network.
        coordinator_bind_address=coordinator if name in meeting.LOOPBACK else None,
    )


def _cloud(environment: Mapping[str, str]) -> str | None:
    """The system that started this process as one of several, if one did.

    JAX takes a single shell inside an allocation for a run of many; the number of tasks tells.
    """
    tasks = environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", "1"))
    if "SLURM_PROCID" in environment and "SLURM_STEP_NODELIST" in environment and tasks != "1":
        return "Slurm"
    if environment.get("OMPI_COMM_WORLD_SIZE", "1") != "1":
        return "Open MPI"
    # JAX sets the first where it finds a TPU, and the second where it finds none.
    on_tpu = "TPU_ML_PLATFORM" in environment
    platforms = environment.get("JAX_PLATFORMS", "")
    if on_tpu and (not platforms or "tpu" in platforms.split(",")):
        hosts = environment.get("TPU_PROCESS_ADDRESSES", environment.get("TPU_WORKER_HOSTNAMES"))
        if hosts is not None or "TPU_SKIP_MDS_QUERY" not in environment:
            return "Cloud TPU"
    indexed = "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment
    if indexed and importlib.util.find_spec("kubernetes") is not None:
        return "Kubernetes"
    return None


def _join(**arguments: Any) -> None:
    # The service would take SIGTERM for itself; the loop stops all processes in its own way.
    if hasattr(jax.config, "jax_enable_preemption_service"):
        jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"could not join the other processes: {reason}; --coordinator, --num-processes and "
            "--process-id say where they are"
        ) from error


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process. Every process must call it, at the same step."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def as_in_first(flags: Sequence[bool]) -> list[bool]:
    """The flags as process 0 has them. Every process must call it, at the same step.

    Raises:
        UserError: the processes have different numbers of them.
    """
    if jax.process_count() == 1:
        return list(flags)
    counts = multihost_utils.process_allgather(np.asarray(len(flags)))
    if len(set(counts.tolist())) > 1:
        raise UserError(
            "the processes see different numbers of pictures "
            f"({', '.join(map(str, counts.tolist()))}): give them the same folders"
        )
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(flags, bool))).tolist()


def barrier(name: str) -> None:
    """Waits until every process has come to the barrier of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


# Data


def check_batch(config: TrainConfig) -> None:
    """Refuses batches that do not divide into the devices of all processes.

    Raises:
        UserError: names the size and the number of parts.
    """
    count = jax.device_count()
    parts = count * config.accumulate
    among = f"{count} device{'s' if count > 1 else ''}"
    if config.accumulate > 1:
        among += f" times accumulate {config.accumulate}"
    sizes = {"batch_size": config.batch_size, "data.style_batch_size": config.data.style_batch_size}
    for name, size in sizes.items():
        if size % parts:
            near = max(parts, size // parts * parts)
            raise UserError(
                f"{name} {size} does not divide into {parts} parts ({among}): "
                f"set it to a multiple, as {near}"
            )


def replicate(tree: Any) -> Any:
    """A copy of every array on each local device, placed as `make_update` gives them back."""
    mesh = Mesh(np.asarray(jax.local_devices()), (AXIS,))
    sharding = NamedSharding(mesh, PartitionSpec())

    # Copies: arrays that already lie there would share their memory, and the step donates it.
    # A replica on the very device of an array is the array, whatever device_put is told.
    def place(leaf: Any) -> Any:
        return jax.device_put(leaf.copy(), sharding, may_alias=False)

    return jax.tree.map(place, jax.tree.map(_local, tree))


def to_host(tree: Any) -> Any:
    """Replicated arrays as NumPy's, in memory of their own: a later donation does not touch them.

    The shards are copied without caching a view in the array: on CPU that view would be the
    device's own memory, which could then no longer be donated.
    """
    shards = jax.tree.map(_local, tree)
    for shard in jax.tree.leaves(shards):
        if isinstance(shard, jax.Array):
            shard.copy_to_host_async()
    return jax.tree.map(lambda shard: np.array(shard, copy=True), shards)


def _local(leaf: Any) -> Any:
    return leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf


def _split(batch: Any) -> Any:
    """Rows `[n, ...]` of this process as `[local devices, n / local devices, ...]`."""
    count = jax.local_device_count()

    def split(rows: Any) -> Any:
        if rows.shape[0] % count:
            raise ValueError(
                f"batches must divide into the {count} devices of this process; got "
                f"{rows.shape[0]} rows"
            )
        return rows.reshape(count, rows.shape[0] // count, *rows.shape[1:])

    return jax.tree.map(split, batch)


def _to_float(batch: Any) -> Any:
    """Pictures as float32 in [0, 1]; on the device, since bytes are a quarter to transfer."""
    return jax.tree.map(lambda rows: rows.astype(jnp.float32) / 255, batch)


# Steps


def make_update(update: Callable[..., Any]) -> Callable[..., Any]:
    """The update of a method, over all devices.

    Args:
        update: `(state, batch, key) -> (state, metrics)`, pure, averaging over `AXIS`.

    Returns:
        `(state, batch, key) -> (state, metrics)`: the state as `replicate` places it, which is
        donated: its memory is used anew and it must not be read afterwards. The batch is a dict of
        uint8 arrays of this process's rows, `[rows, height, width, 3]`; the key is the same in
        every process. Metrics are scalars on the devices, not waited for.
    """

    def step(state: Any, batch: Any, key: Any) -> Any:
        return update(state, _to_float(batch), key)

    # The outputs are the same on every device, which pmap does not check; the tests do.
    mapped = jax.pmap(
        step, axis_name=AXIS, in_axes=(None, 0, None), out_axes=(None, None), donate_argnums=0
    )
    return lambda state, batch, key: mapped(state, _split(batch), key)


def make_evaluate(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    """The evaluation of a method, over all devices: `(state, batch) -> metrics`.

    Args and the batch are those of `make_update`; the state stays as it is.
    """

    def step(state: Any, batch: Any) -> Any:
        return evaluate(state, _to_float(batch))

    mapped = jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=None)
    return lambda state, batch: mapped(state, _split(batch))


def make_sample(sample: Callable[..., Any]) -> Callable[..., Any]:
    """The samples of a method, on the first local device: `(state, batch) -> images`.

    One process may call it alone: nothing is exchanged. Any number of rows will do.
    """

    @jax.jit
    def step(state: Any, batch: Any) -> Any:
        return sample(state, _to_float(batch))

    return lambda state, batch: step(jax.tree.map(_local, state), batch)
