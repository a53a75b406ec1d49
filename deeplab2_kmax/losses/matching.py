"""Optimal one-to-one matching of ground-truth masks with mask slots (linear sum assignment)."""

from __future__ import annotations

import numpy as np
import scipy.optimize
import tensorflow as tf

from deeplab2_kmax.errors import ConfigError

BACKENDS = ("auto", "host", "xla")


def match(costs: tf.Tensor, exists: tf.Tensor, backend: str = "auto") -> tf.Tensor:
    """Slot of each mask such that as many masks as possible have one and the sum of their costs is least.

    costs: [B, M, N] float, cost of giving mask m slot n. exists: [B, M] bool; other rows are padding.
    backend: "host" asks SciPy on the CPU, and only about the rows that exist; "xla" runs inside the graph with static
    shapes, for TPU and `jit_compile=True`; "auto" is "xla" under a TPUStrategy and "host" elsewhere. Both are exact.
    Returns [B, M] i32, -1 for padding and, where an image has more masks than slots, for the masks left over.
    Costs that are not finite are worse than any other of the image. No gradient flows through.

    Raises:
      ConfigError: unknown backend.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"matching backend: expected one of {', '.join(BACKENDS)}, came {backend!r}")
    costs = tf.stop_gradient(tf.cast(costs, tf.float32))
    if resolve_backend(backend) == "xla":
        return _match_in_graph(costs, exists)
    slots = tf.numpy_function(_match_on_host, [costs, exists], tf.int32)
    return tf.ensure_shape(slots, exists.shape)


def resolve_backend(backend: str) -> str:
    """ "host" or "xla" for "auto", according to the distribution strategy in scope."""
    if backend != "auto":
        return backend
    on_tpu = isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)
    return "xla" if on_tpu else "host"


def _match_on_host(costs: np.ndarray, exists: np.ndarray) -> np.ndarray:
    slots = np.full(exists.shape, -1, np.int32)
    for image_costs, image_exists, image_slots in zip(costs, exists, slots):
        rows = np.flatnonzero(image_exists)
        image_costs = image_costs[rows]
        finite = np.isfinite(image_costs)
        if not finite.all():
            worst = image_costs[finite].max() if finite.any() else 0.0
            image_costs = np.where(finite, image_costs, worst + 1.0)
        matched, columns = scipy.optimize.linear_sum_assignment(image_costs)
        image_slots[rows[matched]] = columns
    return slots


def _match_in_graph(costs: tf.Tensor, exists: tf.Tensor) -> tf.Tensor:
    """Shortest augmenting paths (Jonker and Volgenant, 1987), one mask after another, all images side by side."""
    masks, slots = costs.shape[1:]
    usable = tf.math.is_finite(costs) & exists[:, :, None]
    worst = tf.reduce_max(tf.where(usable, costs, costs.dtype.min), axis=[1, 2], keepdims=True)
    worst = tf.where(worst > costs.dtype.min, worst, 0.0)
    costs = tf.where(usable, costs, worst + 1.0)
    # Spare columns, dearer than any slot, take the masks that are left over when there are more masks than slots.
    spare = tf.zeros([1, 1, max(0, masks - slots)])
    costs = tf.concat([costs, worst + 2.0 + spare + tf.zeros([1, masks, 1])], axis=2)

    # Masks that exist come first, so that the loop ends with the last of them.
    order = tf.argsort(tf.cast(~exists, tf.int32), axis=1, stable=True)
    costs = tf.gather(costs, order, batch_dims=1)
    counts = tf.math.count_nonzero(exists, axis=1, dtype=tf.int32)
    mask_of_column = _assign_rows(costs, counts)[:, :slots]

    slot_of_row = tf.reduce_max(
        tf.where(mask_of_column[:, None, :] == tf.range(masks)[None, :, None], tf.range(slots)[None, None, :], -1), 2
    )
    return tf.gather(slot_of_row, tf.argsort(order, axis=1, stable=True), batch_dims=1)


def _assign_rows(costs: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Assigns the first counts[b] rows of costs [B, R, C], R <= C, each to a column; returns row of column, -1: free.

    Row and column potentials u and v keep `costs - u - v >= 0`, with 0 where assigned. Each new row grows a tree of
    shortest alternating paths until it meets a free column, then the path to it is flipped.
    """
    batch, columns = tf.shape(costs)[0], costs.shape[2]
    state = (
        tf.constant(0),
        tf.fill([batch, columns], -1),
        tf.zeros_like(costs[:, :, 0]),
        tf.zeros_like(costs[:, 0, :]),
    )

    def add_row(row, row_of_column, u, v):
        active = row < counts
        free, distance, shortest, previous, u_row = _shortest_path(costs, row_of_column, u, v, row, active)
        # New potentials: what the tree reached moves by how much earlier than the free column it was reached.
        slack = tf.where(distance < shortest[:, None], shortest[:, None] - distance, 0.0)
        slack = tf.where(active[:, None], slack, 0.0)
        tree_rows = tf.where(slack > 0.0, row_of_column, -1)
        in_row = tf.one_hot(tree_rows, costs.shape[1], axis=1)
        u = u + tf.einsum("brc,bc->br", in_row, slack) + u_row
        v = v - slack
        return row + 1, _flip_path(row_of_column, previous, free, row, active), u, v

    last = tf.reduce_max(counts)
    return tf.while_loop(lambda row, *_: row < last, add_row, state)[1]


def _shortest_path(costs, row_of_column, u, v, new_row, active):
    """Dijkstra from `new_row` to the nearest free column in reduced costs.

    Returns, per image: the free column [B], distances of settled columns (inf: not settled) [B, C], the distance of
    the free column [B], the row each column was reached from [B, C], and the change of `u` at the new row [B, R].
    """
    infinity = costs.dtype.max
    batch, rows, columns = tf.shape(costs)[0], costs.shape[1], costs.shape[2]

    def step(searching, row, lowest, tentative, settled, previous, free):
        row_costs = tf.gather(costs, row, axis=1, batch_dims=1)
        reduced = lowest[:, None] + row_costs - tf.gather(u, row, batch_dims=1)[:, None] - v
        better = (reduced < tentative) & (settled == infinity) & searching[:, None]
        tentative = tf.where(better, reduced, tentative)
        previous = tf.where(better, row[:, None], previous)
        # Settled columns leave the race. Of several nearest ones a free column ends the search; then the first, as in
        # SciPy, so that both backends mostly agree in ties.
        open_distance = tf.where(settled == infinity, tentative, infinity)
        nearest = tf.reduce_min(open_distance, axis=1)
        rank = tf.where(open_distance == nearest[:, None], 2 - tf.cast(row_of_column >= 0, tf.int32), 0)
        column = tf.argmax(rank, axis=1, output_type=tf.int32)
        here = searching[:, None] & (tf.range(columns)[None, :] == column[:, None])
        lowest = tf.where(searching, nearest, lowest)
        settled = tf.where(here, nearest[:, None], settled)
        owner = tf.gather(row_of_column, column, batch_dims=1)
        free = tf.where(searching & (owner < 0), column, free)
        searching = searching & (owner >= 0)
        return searching, tf.where(searching, owner, row), lowest, tentative, settled, previous, free

    nothing = tf.zeros_like(costs[:, 0, :])
    start = (
        active,
        tf.fill([batch], new_row),
        tf.zeros([batch]),
        nothing + infinity,
        nothing + infinity,
        tf.fill([batch, columns], -1),
        tf.fill([batch], 0),
    )
    result = tf.while_loop(lambda searching, *_: tf.reduce_any(searching), step, start)
    _, _, shortest, _, settled, previous, free = result
    u_change = tf.where(active, shortest, 0.0)[:, None] * tf.one_hot(new_row, rows)[None, :]
    return free, settled, shortest, previous, u_change


def _flip_path(row_of_column, previous, free, new_row, active):
    """Gives each column on the path that ends at `free` the row it was reached from."""
    columns = row_of_column.shape[1]

    def step(walking, column, owners):
        row = tf.gather(previous, column, batch_dims=1)
        here = walking[:, None] & (tf.range(columns)[None, :] == column[:, None])
        # The column this row held before is the next to change; the new row held none.
        held = tf.argmax(tf.cast(row_of_column == row[:, None], tf.int32), axis=1, output_type=tf.int32)
        owners = tf.where(here, row[:, None], owners)
        return walking & (row != new_row), held, owners

    start = (active, free, row_of_column)
    return tf.while_loop(lambda walking, *_: tf.reduce_any(walking), step, start)[2]
