"""Several processes as one run: start them together, stop them together, end them together.

JAX ends a process with an abort, which Python cannot catch, when another one dies (jaxlib's own callback for it fails on its
argument). A run of several processes therefore works in a child process, and its parent turns the abort into a sentence.
"""

import ctypes
import dataclasses
import glob
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from smolrgpt_jax.errors import RunError

if TYPE_CHECKING:
    from jax.sharding import Mesh

PORT = 8476  # JAX's default on TPUs, 8482, is often closed between hosts
INITIALIZATION_TIMEOUT = 600  # seconds; hosts of a pod install and boot at different speeds
HEARTBEAT_TIMEOUT = 30  # seconds until a silent process counts as dead
# Flag of launch.train -> environment variable with the same meaning.
VARIABLES = {name: f"JAX_{name.upper()}" for name in ("coordinator_address", "num_processes", "process_id")}
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
PR_SET_PDEATHSIG = 1  # of Linux's prctl
PARENT = "SMOLRGPT_PARENT"  # its process id, which tells a child that it is one
STOP = "smolrgpt_stop"  # under which a process tells the others that it was asked to stop
GO_ON = "the same command on every host goes on from the newest checkpoint"


@dataclasses.dataclass(frozen=True)
class Processes:
    """Where the coordinator (process 0) listens, how many processes there are and which one this is; None: JAX finds it."""

    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None

    def __str__(self) -> str:
        if self.process_id is None:
            return "this process"
        return f"process {self.process_id} of {self.num_processes} (coordinator {self.coordinator_address})"


def find_processes(given: Processes = Processes(), environ: Mapping[str, str] = os.environ) -> Processes | None:
    """The processes of this run; None for a single one.

    What is given goes before the environment variables of `VARIABLES`; without either, a Slurm step of several tasks and a TPU host
    are recognised and left to JAX. Raises ValueError for settings that are incomplete or contradict each other.
    """
    found = {n: environ.get(v) if getattr(given, n) is None else getattr(given, n) for n, v in VARIABLES.items()}
    missing = [f"--{n} ({VARIABLES[n]})" for n, value in found.items() if value is None]
    if not missing:
        try:
            count, index = int(str(found["num_processes"])), int(str(found["process_id"]))
        except ValueError:
            numbers = f"num_processes {found['num_processes']!r} and process_id {found['process_id']!r}"
            raise ValueError(f"{numbers} have to be whole numbers") from None
        if not 0 <= index < count:
            raise ValueError(f"process_id {index} is not one of 0 to {count - 1} ({count} processes)")
        address = str(found["coordinator_address"])
        return None if count == 1 else Processes(address if ":" in address else f"{address}:{PORT}", count, index)
    if len(missing) < len(found):
        raise ValueError(f"several processes need {' and '.join(missing)} too")
    slurm = all(name in environ for name in SLURM) and int(environ["SLURM_NTASKS"]) > 1
    chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    on_tpu = chips and importlib.util.find_spec("libtpu") is not None
    return Processes() if slurm or on_tpu else None


def start(
    given: Processes = Processes(),
    *,
    initialization_timeout: int = INITIALIZATION_TIMEOUT,
    heartbeat_timeout: int = HEARTBEAT_TIMEOUT,
) -> None:
    """Joins this process with the others of its run (see `find_processes`); returns at once where there is only one.

    Call it first in a program: with several processes it runs the same command line again as a child, and only the child returns;
    the parent exits with the child's status. initialization_timeout: seconds to wait for the others, then the process exits with a
    sentence that says what to check; heartbeat_timeout: seconds after which a process that no longer answers ends all others.
    """
    processes = find_processes(given)
    if processes is None:
        return
    if PARENT not in os.environ:
        raise SystemExit(_run_child(processes))
    # Has the kernel end this process when its parent ends.
    if sys.platform == "linux":  # where pods are
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ.pop(PARENT)):
        os._exit(1)
    _initialize(processes, initialization_timeout, heartbeat_timeout)
    print(f"{this_process()} started", flush=True)


def _run_child(processes: Processes) -> int:
    """Runs the command line again, passes signals on and returns the exit status, with a sentence if it was killed."""
    child = subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env={**os.environ, PARENT: str(os.getpid())})
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: child.send_signal(number))
    status = child.wait()
    if status >= 0:
        return status
    name = signal.Signals(-status).name
    why = f"was killed by {name}" + (": is the host out of memory?" if name == "SIGKILL" else "")
    if name == "SIGABRT":
        why = "was ended by JAX because another process died, was preempted or cannot be reached any more: its log has the first error"
    print(f"error: {processes} {why}; {GO_ON}", file=sys.stderr, flush=True)
    return 128 - status


def this_process() -> Processes:
    # JAX has no public way to ask for the address that it found.
    from jax._src.distributed import global_state as state

    return Processes(state.coordinator_address, state.num_processes, state.process_id)


def _initialize(processes: Processes, initialization_timeout: int, heartbeat_timeout: int) -> None:
    # Read by JAX where it finds the coordinator by itself.
    os.environ.setdefault("JAX_COORDINATOR_PORT", str(PORT))
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")

    def give_up() -> None:
        this = this_process()
        _leave(
            f"error: {this} waited {initialization_timeout} seconds in vain for all processes: check that the same command was "
            f"started on all {this.num_processes} of them, that process 0 runs on the coordinator's host and that the "
            "coordinator's port is open between the hosts"
        )

    # JAX's own time-out ends in an abort, so it comes later.
    timer = threading.Timer(initialization_timeout, give_up)
    timer.daemon = True
    timer.start()
    found_by_jax = processes.coordinator_address is None
    try:
        jax.distributed.initialize(
            **dataclasses.asdict(processes),
            cluster_detection_method=None if found_by_jax else "deactivate",
            initialization_timeout=initialization_timeout + 60,
            heartbeat_timeout_seconds=heartbeat_timeout,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise SystemExit(
            f"error: {processes} cannot join a run of several processes ({reason}); "
            f"--num_processes=1 --process_id=0 --coordinator_address=localhost runs it alone"
        ) from None
    finally:
        timer.cancel()


def _leave(message: str) -> NoReturn:
    """Ends the process without JAX's wait for the others, so that they notice."""
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)


@contextmanager
def end_on_error() -> Iterator[None]:
    """In a run of several processes, an error inside ends this one at once.

    Otherwise it would wait for the others as it exits, and they for it in the next collective operation. With one process,
    errors pass through.
    """
    import jax

    try:
        yield
    except BaseException as error:
        if not jax.distributed.is_initialized():
            raise
        if isinstance(error, SystemExit):
            _leave(str(error))
        traceback.print_exc()
        _leave(
            f"error: {this_process()} failed and ends the run; if the lines above speak of a connection, another process ended "
            f"first and its log has the first error; {GO_ON}"
        )


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them, so that the step under way is finished and saved."""
    received: list[int] = []
    handlers = {s: signal.signal(s, lambda number, _: received.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def gather(value: Any) -> list[Any]:
    """A value that JSON can hold of every process, in their order, on all of them; all have to call it together."""
    import jax
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    if jax.process_count() == 1:
        return [value]
    own = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.ravel(process_allgather(np.array([own.size], np.int32)))
    everyone = process_allgather(np.pad(own, (0, sizes.max() - own.size)))
    return [json.loads(text[:size].tobytes()) for text, size in zip(everyone, sizes)]


def check_alike(facts: Mapping[str, Any]) -> None:
    """Raises RunError, the same sentence on every process, where `facts` (see `gather`) are not the same on all of them."""
    import jax

    everyone = gather(facts)
    usual = max(everyone, key=everyone.count)
    others = {str(index): found for index, found in enumerate(everyone) if found != usual}
    if others:
        if jax.process_index() == 0:
            time.sleep(1)  # it coordinates: once it has ended the others could not say it any more
        one = next(iter(others.values()))
        names = [name for name in {**usual, **one} if one.get(name) != usual.get(name)]
        what = "; ".join(f"{name} {one.get(name)!r} instead of {usual.get(name)!r}" for name in names)
        raise RunError(f"of {len(everyone)} processes, {', '.join(others)} (from 0) would go on with {what}")


class StopTogether:
    """Whether any process was asked to stop, with the same answer on all of them.

    Processes that stopped at different steps would wait for each other for ever. Every call starts a small reduction over all
    devices behind the step just dispatched and returns the result of the call before, so that nothing waits for it.
    """

    def __init__(self, mesh: "Mesh", signals: Sequence[int]):
        """signals: those that this process received so far, see `stop_on_signal`."""
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        self._signals, self._alone = signals, jax.process_count() == 1
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._local = len(mesh.local_devices)
        self._any = jax.jit(jax.numpy.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._before: jax.Array | None = None

    def __call__(self) -> bool:
        """Whether one of them was asked to before its last call; all processes call this equally often.

        One process alone is answered at once.
        """
        import jax
        import numpy as np

        if self._alone:
            return bool(self._signals)
        wanted = np.full(self._local, bool(self._signals), np.int32)
        before, self._before = (self._before, self._any(jax.make_array_from_process_local_data(self._sharding, wanted)))
        return before is not None and bool(before)

    def now(self) -> bool:
        """The answer of this moment, for which the processes wait for each other."""
        return self() or self()

    def heard(self) -> bool:
        """Whether this process knows of one that was asked to; for where they do not go in step, as they answer questions."""
        if self._alone:
            return bool(self._signals)
        from jax._src.distributed import global_state  # there is no public way to its messages

        client: Any = global_state.client

        if self._signals:
            client.key_value_set(f"{STOP}/asked", "", allow_overwrite=True)
        return bool(self._signals or client.key_value_dir_get(STOP))
