"""Optimal one-to-one matching of ground-truth masks with mask slots (linear sum assignment).

There are two solvers. SciPy's runs on the host, and only on the masks that exist, so that a few masks and a hundred
slots take well under a millisecond; it cannot be compiled by XLA. `_match_in_graph` can: it has static shapes and no
scattered writes, which are slow on TPUs. Both find an optimum; where several are equally good, mostly the same one.
"""

from __future__ import annotations

import numpy as np
import scipy.optimize
import tensorflow as tf

from deeplab2_kmax.config.problems import choice_problems, refuse

BACKENDS = ("auto", "host", "xla")


def match(costs: tf.Tensor, exists: tf.Tensor, backend: str = "auto") -> tf.Tensor:
    """Gives each mask a slot, such that as many masks as possible have one and the sum of their costs is smallest.

    Costs that are not finite count as higher than all others of the image. No gradient flows through.

    Args:
        costs: [B, M, N], float, the cost of giving mask m slot n.
        exists: bool [B, M], false for rows that are padding.
        backend: "host" solves with SciPy on the CPU; "xla" within the graph, for TPUs and `jit_compile=True`; "auto" is
            "xla" under a TPUStrategy and "host" elsewhere.

    Returns:
        int32 [B, M], the slot of each mask; -1 for padding and, where an image has more masks than slots, for the masks
        that are left over.

    Raises:
        ConfigError: the backend is unknown.
    """
    refuse(choice_problems("matching backend", backend, BACKENDS))
    costs = tf.stop_gradient(tf.cast(costs, tf.float32))
    if resolve_backend(backend) == "xla":
        return _match_in_graph(costs, exists)
    slots = tf.numpy_function(_match_on_host, [costs, exists], tf.int32)
    return tf.ensure_shape(slots, exists.shape)


def resolve_backend(backend: str) -> str:
    """The backend that "auto" stands for under the distribution strategy in scope; others are returned as they are."""
    if backend != "auto":
        return backend
    on_tpu = isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)
    return "xla" if on_tpu else "host"


def _match_on_host(costs: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """`match` for arrays, with SciPy."""
    slots = np.full(exists.shape, -1, np.int32)
    for image_costs, image_exists, image_slots in zip(costs, exists, slots):
        rows = np.flatnonzero(image_exists)
        image_costs = image_costs[rows]
        finite = np.isfinite(image_costs)
        # SciPy refuses NaN. A model that has diverged should show as a loss that is NaN, where training reports it, and
        # not as an error in here.
        if not finite.all():
            worst = image_costs[finite].max() if finite.any() else 0.0
            image_costs = np.where(finite, image_costs, worst + 1.0)
        matched, columns = scipy.optimize.linear_sum_assignment(image_costs)
        image_slots[rows[matched]] = columns
    return slots


def _match_in_graph(costs: tf.Tensor, exists: tf.Tensor) -> tf.Tensor:
    """`match` by shortest augmenting paths (Jonker and Volgenant, 1987): mask by mask, all images side by side."""
    masks, slots = costs.shape[1:]
    if not masks or not slots:
        return tf.fill(tf.shape(exists), -1)
    usable = tf.math.is_finite(costs) & exists[:, :, None]
    worst = tf.reduce_max(tf.where(usable, costs, costs.dtype.min), axis=[1, 2], keepdims=True)
    worst = tf.where(worst > costs.dtype.min, worst, 0.0)
    costs = tf.where(usable, costs, worst + 1.0)
    # The algorithm needs a column for each row. Spare columns take the masks that are left over when there are more
    # masks than slots. They cost more than any slot, even one whose cost is not finite (worst + 1).
    spare = tf.zeros([1, 1, max(0, masks - slots)])
    costs = tf.concat([costs, worst + 2.0 + spare + tf.zeros([1, masks, 1])], axis=2)

    # Masks that exist move to the front, so that the loop over rows can end with the last of them.
    order = tf.argsort(tf.cast(~exists, tf.int32), axis=1, stable=True)
    costs = tf.gather(costs, order, batch_dims=1)
    counts = tf.math.count_nonzero(exists, axis=1, dtype=tf.int32)
    mask_of_column = _assign_rows(costs, counts)[:, :slots]

    # Turns mask of column into column of mask, without scattered writes; then back to the order of the caller's masks.
    slot_of_row = tf.reduce_max(
        tf.where(mask_of_column[:, None, :] == tf.range(masks)[None, :, None], tf.range(slots)[None, None, :], -1), 2
    )
    return tf.gather(slot_of_row, tf.argsort(order, axis=1, stable=True), batch_dims=1)


def _assign_rows(costs: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Assigns the first rows of each image to columns.

    The potentials u of rows and v of columns are such that the reduced costs `costs - u - v` are never negative, and 0
    where a row is assigned to a column; then the assignment is optimal for the rows so far. Each new row grows a tree
    of shortest alternating paths in reduced costs until it reaches a free column. Flipping the path to that column
    assigns one row more, and new potentials restore the condition.

    Args:
        costs: float32 [B, R, C], finite, R <= C.
        counts: int32 [B], how many rows to assign.

    Returns:
        int32 [B, C], the row of each column, -1 where it is free.
    """
    batch, columns = tf.shape(costs)[0], costs.shape[2]
    state = (
        tf.constant(0),
        tf.fill([batch, columns], -1),
        tf.zeros_like(costs[:, :, 0]),
        tf.zeros_like(costs[:, 0, :]),
    )

    def add_row(
        row: tf.Tensor, row_of_column: tf.Tensor, u: tf.Tensor, v: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        # Images with fewer rows take part without any effect.
        active = row < counts
        free, distance, shortest, previous, u_row = _shortest_path(costs, row_of_column, u, v, row, active)
        # Each settled column, and the row assigned to it, moves by how much nearer it was than the free column.
        slack = tf.where(distance < shortest[:, None], shortest[:, None] - distance, 0.0)
        slack = tf.where(active[:, None], slack, 0.0)
        tree_rows = tf.where(slack > 0.0, row_of_column, -1)
        in_row = tf.one_hot(tree_rows, costs.shape[1], axis=1)
        u = u + tf.einsum("brc,bc->br", in_row, slack) + u_row
        v = v - slack
        return row + 1, _flip_path(row_of_column, previous, free, row, active), u, v

    last = tf.reduce_max(counts)
    return tf.while_loop(lambda row, *_: row < last, add_row, state)[1]


def _shortest_path(
    costs: tf.Tensor, row_of_column: tf.Tensor, u: tf.Tensor, v: tf.Tensor, new_row: tf.Tensor, active: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Dijkstra's algorithm from `new_row` to the nearest free column, with reduced costs as lengths.

    Args:
        costs: float32 [B, R, C].
        row_of_column: int32 [B, C], the assignment so far.
        u: float32 [B, R], potentials of rows.
        v: float32 [B, C], potentials of columns.
        new_row: int32 scalar.
        active: bool [B], images that have this row.

    Returns:
        The free column int32 [B]; the distances of settled columns, of others the largest float, [B, C]; the distance
        of the free column [B]; the row that each column was reached from int32 [B, C]; the change of u [B, R], which is
        0 but at the new row.
    """
    # Finite, so that no difference is NaN.
    infinity = costs.dtype.max
    batch, rows, columns = tf.shape(costs)[0], costs.shape[1], costs.shape[2]

    def step(
        searching: tf.Tensor,
        row: tf.Tensor,
        lowest: tf.Tensor,
        tentative: tf.Tensor,
        settled: tf.Tensor,
        previous: tf.Tensor,
        free: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        # Improve the distances of open columns by way of `row`, which was reached last at the distance `lowest`.
        row_costs = tf.gather(costs, row, axis=1, batch_dims=1)
        reduced = lowest[:, None] + row_costs - tf.gather(u, row, batch_dims=1)[:, None] - v
        better = (reduced < tentative) & (settled == infinity) & searching[:, None]
        tentative = tf.where(better, reduced, tentative)
        previous = tf.where(better, row[:, None], previous)
        # Settle the nearest open column. Of several equally near ones a free column is taken, which ends the search,
        # else the first, as in SciPy; so both backends mostly agree on ties.
        open_distance = tf.where(settled == infinity, tentative, infinity)
        nearest = tf.reduce_min(open_distance, axis=1)
        rank = tf.where(open_distance == nearest[:, None], 2 - tf.cast(row_of_column >= 0, tf.int32), 0)
        column = tf.argmax(rank, axis=1, output_type=tf.int32)
        here = searching[:, None] & (tf.range(columns)[None, :] == column[:, None])
        lowest = tf.where(searching, nearest, lowest)
        settled = tf.where(here, nearest[:, None], settled)
        # A free column ends the search; from an assigned one it goes on with the row that has it.
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


def _flip_path(
    row_of_column: tf.Tensor, previous: tf.Tensor, free: tf.Tensor, new_row: tf.Tensor, active: tf.Tensor
) -> tf.Tensor:
    """Gives each column on the path that ends at column `free` the row it was reached from.

    The path is walked backwards, from the free column to the new row. Arguments are as in `_shortest_path`.

    Returns:
        int32 [B, C], the new row of each column.
    """
    columns = row_of_column.shape[1]

    def step(walking: tf.Tensor, column: tf.Tensor, owners: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        row = tf.gather(previous, column, batch_dims=1)
        here = walking[:, None] & (tf.range(columns)[None, :] == column[:, None])
        # The next column to change is the one this row had before. The new row had none, and ends the walk.
        held = tf.argmax(tf.cast(row_of_column == row[:, None], tf.int32), axis=1, output_type=tf.int32)
        owners = tf.where(here, row[:, None], owners)
        return walking & (row != new_row), held, owners

    start = (active, free, row_of_column)
    return tf.while_loop(lambda walking, *_: tf.reduce_any(walking), step, start)[2]
